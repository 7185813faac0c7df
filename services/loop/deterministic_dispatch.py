"""Which worker gets which groups when all of them are known at once: the same ones every time.

Where groups stream, each goes to the least loaded worker, and who computes beside whom depends on the clock. A batch is
dealt out by position alone, and every worker starts its part as one batch (rollout_workers/batch_barrier.py): so a
synchronous run gives the same tokens and log-probabilities, bit for bit, whenever it is run with as many workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rayzero.services.schema.messages import GroupBatch, GroupRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """A request and the worker that it was dealt to."""

    request: GroupRequest
    worker: str


def assign(requests: Sequence[GroupRequest], workers: Sequence[str], label: str) -> list[Assignment]:
    """Requests to workers in turn, in the order given; `label` names the batch, uniquely within the run's process."""
    chosen = [workers[index % len(workers)] for index in range(len(requests))]
    sizes = Counter(chosen)
    return [
        Assignment(
            request=replace(request, batch=GroupBatch(batch_id=f"{label} at {worker}", size=sizes[worker])),
            worker=worker,
        )
        for request, worker in zip(requests, chosen, strict=True)
    ]
