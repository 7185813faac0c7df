"""Asks every node of a running Ray what the doctor wants to know of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayzero.services.planning.machine import Machine, examine
from rayzero.services.schema.errors import RunUnreachable

Isolation = Callable[[], tuple[str, Mapping[str, str]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterNode:
    """One living node."""

    address: str
    resources: dict[str, float]
    machine: Machine | None
    """None: it did not answer."""
    problem: str = ""
    isolation: tuple[str, Mapping[str, str]] | None = None
    """What isolates programs there, and why not what was passed over; None: it did not say."""


def ask_nodes(
    address: str, model: Path | None, runs: Path, probe: str, isolation: Isolation, deadline_s: float
) -> list[ClusterNode]:
    """Run `examine` and `isolation` on every node of the Ray at `address`.

    Raises:
        RunUnreachable: no Ray there, or it asks for a token.
    """
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RunUnreachable(
            f"no Ray answers at {address}: {str(error).strip().splitlines()[0]}. Where it asks for a token, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN; where it asks for none, RAY_AUTH_MODE=disabled"
        ) from None
    try:
        living = [node for node in ray.nodes() if node["Alive"]]
        machines = [_ask(node["NodeID"], examine, model, runs, probe) for node in living]
        sandboxes = [_ask(node["NodeID"], isolation) for node in living]
        ray.wait([*machines, *sandboxes], num_returns=2 * len(living), timeout=deadline_s)
        return [_node(*each) for each in zip(living, machines, sandboxes, strict=True)]
    finally:
        ray.shutdown()


def _ask(node_id: str, what: Callable[..., object], *arguments: object) -> ray.ObjectRef:
    pinned = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = ray.remote(what).options(num_cpus=0, max_retries=0, scheduling_strategy=pinned)
    return task.remote(*arguments)


def _node(node: dict[str, object], answer: ray.ObjectRef, sandbox: ray.ObjectRef) -> ClusterNode:
    resources = {
        name: amount
        for name, amount in dict(node["Resources"]).items()  # type: ignore[call-overload]
        if not name.startswith("node:") and name not in ("memory", "object_store_memory")
    }
    machine, problem = None, ""
    try:
        machine = ray.get(answer, timeout=0)
    except ray.exceptions.RayError as error:
        problem = str(error).strip().splitlines()[-1][:300]
    isolation = None
    with contextlib.suppress(ray.exceptions.RayError):  # one that is too busy, or has an older rayzero
        isolation = ray.get(sandbox, timeout=0)
    return ClusterNode(
        address=str(node["NodeManagerAddress"]),
        resources=resources,
        machine=machine,
        problem=problem,
        isolation=isolation,
    )
