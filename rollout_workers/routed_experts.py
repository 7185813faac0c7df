"""Which experts an engine sent its tokens to, as the answer of each request carries it.

On GPUs vLLM returns it (`enable_return_routed_experts`); on CPUs it is captured in the engine's process
(routing_capture.py) and put where vLLM would have it, so that all further on know one form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.rollout_workers.engine_calls import EngineCalls
from rayzero.services.schema.messages import Completion

Experts = NDArray[np.uint8] | NDArray[np.uint16]
"""[R, L, K], see `Completion.routed_experts`."""


class RoutedExperts:
    """Of one engine's requests."""

    def __init__(self, calls: EngineCalls, *, captured: bool) -> None:
        """`captured`: by our own hook; else vLLM's answers have it, or it is not asked for."""
        self._calls, self._captured = calls, captured
        self._awaited: set[str] = set()

    async def begin(self) -> None:
        """Have the engine remember it. Requests that it computed before have none.

        Raises:
            WorkerError: the model's routers cannot be read.
        """
        if self._captured:
            call = self._calls.ready().collective_rpc("begin_routing_capture")
            await self._calls.in_time(call, "begin to capture which experts it chooses")

    @contextmanager
    def awaited(self, request_id: str, number: int) -> Iterator[None]:
        """While the block runs, the engine keeps it of a request of `number` completions, however early one ends."""
        names = _names(request_id, number)
        self._awaited.update(names)
        try:
            yield
        finally:
            self._awaited.difference_update(names)

    async def put_into(self, outputs: Sequence[Any], request_id: str) -> None:
        """Give each of a finished request's outputs its `routed_experts`. `request_id` is the engine's own."""
        if not self._captured:
            return
        call = self._calls.ready().collective_rpc(
            "take_routing", args=(_names(request_id, len(outputs)), sorted(self._awaited))
        )
        (taken,) = await self._calls.in_time(call, "say which experts it chose")
        for output, (content, shape, dtype) in zip(outputs, taken, strict=True):
            output.routed_experts = np.frombuffer(content, dtype).reshape(shape)


def joined(first: Experts | None, whole: Experts | None) -> Experts | None:
    """What there is of a run of tokens, and then what another request that had them in its prompt knows further. A
    token that both have keeps the first: it is what was sampled from."""
    if first is None or whole is None:
        return whole if first is None else first
    joint: Experts = np.concatenate([first, whole[len(first) :]])
    return joint


def without_prompt(completions: Sequence[Completion], length: int) -> tuple[Experts | None, tuple[Completion, ...]]:
    """Of completions of one prompt of `length` tokens, which have its rows before their own: the prompt's, as the first
    that has most of it had them, and the completions with no more than theirs. A learner lays the prompt once."""
    heads = [each.routed_experts[:length] for each in completions if each.routed_experts is not None]
    if not heads:
        return None, tuple(completions)
    own = (
        each if each.routed_experts is None else replace(each, routed_experts=_copied(each, length))
        for each in completions
    )
    return max(heads, key=len).copy(), tuple(own)


def _copied(completion: Completion, start: int) -> Experts | None:
    """A copy: a view would keep the prompt's rows alive, and take them along wherever the message goes."""
    experts = completion.routed_experts
    return None if experts is None else experts[start : start + completion.num_tokens].copy()


def _names(request_id: str, number: int) -> list[str]:
    """What vLLM calls the parts of a request of several completions."""
    return [request_id] if number == 1 else [f"{index}_{request_id}" for index in range(number)]
