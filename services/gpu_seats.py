"""Which actor sits on which GPUs: the bundles of a run's placement group, and whether the nodes can hold them.

A bundle lies on one node, whatever happens: an engine's tensor-parallel GPUs are one bundle, and so are the learner's
where a node has as many; two that share a GPU share a bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.schema.config.recipe import Recipe
from services.schema.errors import ActorStartError

LEARNER, ENGINE = "learner", "engine"


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """What one node of the cluster has."""

    name: str
    num_gpus: float
    num_cpus: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """What is reserved on one node, and for whom."""

    roles: tuple[str, ...]
    num_gpus: int
    num_cpus: int
    resources: tuple[tuple[str, float], ...] = ()

    @property
    def request(self) -> dict[str, float]:
        """As Ray takes it."""
        return {"GPU": self.num_gpus, "CPU": self.num_cpus, **dict(self.resources)}


def bundles_of(recipe: Recipe, roles: Sequence[str], gpus_per_node: int) -> tuple[Bundle, ...]:
    """Learner first, in bundles of a whole node where it is larger than one; then one bundle an engine."""
    cluster, rollout = recipe.cluster, recipe.rollout
    learner_resources = tuple(cluster.learner_resources.items())
    engine_resources = tuple(cluster.rollout_resources.items())
    if cluster.shares_gpu:
        both = dict((*learner_resources, *engine_resources))
        return (Bundle(roles=(LEARNER, ENGINE), num_gpus=1, num_cpus=2, resources=tuple(both.items())),)
    bundles = []
    left = cluster.learner_gpus if LEARNER in roles else 0
    while left > 0:
        size = min(left, max(gpus_per_node, 1))
        named = tuple((name, amount * size) for name, amount in learner_resources)
        bundles.append(Bundle(roles=(LEARNER,), num_gpus=size, num_cpus=size, resources=named))
        left -= size
    engines = rollout.num_workers if ENGINE in roles else 0
    return (*bundles, *[engine_bundle(recipe)] * engines)


def engine_bundle(recipe: Recipe) -> Bundle:
    """One engine's."""
    resources = tuple(recipe.cluster.rollout_resources.items())
    return Bundle(roles=(ENGINE,), num_gpus=recipe.rollout.tensor_parallel_size, num_cpus=1, resources=resources)


def fit(nodes: Sequence[Node], bundles: Sequence[Bundle]) -> tuple[str, ...]:
    """The node of each bundle: the largest bundles first, each where it leaves the least behind.

    Raises:
        ActorStartError: they cannot all be placed; says what is missing where, and what would help.
    """
    free = {node.name: (node.num_gpus, node.num_cpus) for node in nodes}
    placed: dict[int, str] = {}
    for index in sorted(range(len(bundles)), key=lambda index: -bundles[index].num_gpus):
        bundle = bundles[index]
        fitting = [
            (gpus - bundle.num_gpus, name)
            for name, (gpus, cpus) in free.items()
            if gpus >= bundle.num_gpus and cpus >= bundle.num_cpus
        ]
        if not fitting:
            raise ActorStartError(_why_not(nodes, bundles, bundle, free))
        _, name = min(fitting)
        gpus, cpus = free[name]
        free[name] = (gpus - bundle.num_gpus, cpus - bundle.num_cpus)
        placed[index] = name
    return tuple(placed[index] for index in range(len(bundles)))


def _why_not(
    nodes: Sequence[Node], bundles: Sequence[Bundle], bundle: Bundle, free: dict[str, tuple[float, float]]
) -> str:
    wanted, there = sum(each.num_gpus for each in bundles), sum(node.num_gpus for node in nodes)
    largest = max((node.num_gpus for node in nodes), default=0)
    who = "the learner" if bundle.roles[0] == LEARNER else "an engine"
    listing = ", ".join(f"{node.name} {node.num_gpus:g}" for node in nodes if node.num_gpus) or "none"
    if bundle.num_gpus > largest:
        reason = f"{who} needs {bundle.num_gpus} GPUs on one node, and the largest node has {largest:g}"
    elif wanted > there:
        reason = f"the run needs {wanted} GPUs, and the cluster has {there:g}"
    else:
        left = ", ".join(f"{name} {gpus:g} GPUs, {cpus:g} CPUs" for name, (gpus, cpus) in free.items())
        reason = (
            f"{who} needs {bundle.num_gpus} GPUs and {bundle.num_cpus} CPUs on one node; left after the others: {left}"
        )
    return (
        f"{reason} (GPUs by node: {listing}): lower rollout.tensor_parallel_size, rollout.num_workers or "
        "cluster.learner_gpus, add nodes, or wait for them with cluster.wait_for_nodes_s"
    )
