"""Which actor sits on which GPUs: the bundles of a run's placement group, and whether the nodes can hold them.

A bundle always lies on one node: an engine's tensor-parallel GPUs are one bundle, and so are the learner's
where a node has as many; two that share a GPU share a bundle. A bundle's named resources mark that node: they do not
grow with its GPUs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import ActorStartError

LEARNER, ENGINE, REWARD = "learner", "engine", "reward"
ROLES = (LEARNER, ENGINE, REWARD)
_NAMES = {LEARNER: "the learner", ENGINE: "an engine", REWARD: "a reward worker"}
_KEYS = {LEARNER: "learner_resources", ENGINE: "rollout_resources", REWARD: "reward_resources"}

RAY_UNIT = 1e-4
"""The smallest part of a resource that Ray counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """What one node of the cluster has."""

    name: str
    num_gpus: float
    num_cpus: float
    resources: Mapping[str, float] = field(default_factory=dict)
    """Named resources."""

    def offers(self, resources: Mapping[str, float]) -> bool:
        """Whether it has as much of every named resource."""
        return all(self.resources.get(name, 0.0) >= amount for name, amount in resources.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """What is reserved on one node, and for whom."""

    roles: tuple[str, ...]
    num_gpus: float
    """Whole, or a part of one."""
    num_cpus: float
    resources: tuple[tuple[str, float], ...] = ()

    @property
    def request(self) -> dict[str, float]:
        """As Ray takes it: without zeros."""
        wanted = {"GPU": self.num_gpus, "CPU": self.num_cpus, **dict(self.resources)}
        return {name: amount for name, amount in wanted.items() if amount}

    def __str__(self) -> str:
        named = [f"{name} {amount:g}" for name, amount in self.resources]
        *first, last = [f"{self.num_gpus:g} GPUs", f"{self.num_cpus:g} CPUs", *named]
        return f"{', '.join(first)} and {last}"


def bundles_of(recipe: Recipe, roles: Sequence[str], gpus_per_node: int) -> tuple[Bundle, ...]:
    """LearnerHandle first, in bundles of a whole node where it is larger than one; then one bundle an engine, and one a
    reward worker where they have GPUs. Where learner and engines share several GPUs, one bundle for each engine."""
    cluster, rollout = recipe.cluster, recipe.rollout
    rewards = recipe.reward.num_workers if REWARD in roles and recipe.reward.num_gpus_per_worker else 0
    bundles = [reward_bundle(recipe)] * rewards
    if cluster.shares_gpu and cluster.learner_gpus > 1 and LEARNER in roles:
        # The ranks on an engine's GPUs and the engine: it has them from the ranks, for Ray knows no half of several.
        size = rollout.tensor_parallel_size
        both = Counter(cluster.learner_resources) + Counter(cluster.rollout_resources)
        shared = Bundle(roles=(LEARNER, ENGINE), num_gpus=size, num_cpus=size + 1, resources=tuple(both.items()))
        return (*[shared] * rollout.num_workers, *bundles)
    if cluster.shares_gpu and cluster.learner_gpus == 1 and (LEARNER in roles or ENGINE in roles):
        # Both take their part of it, also where they name the same resource.
        both = Counter(cluster.learner_resources) + Counter(cluster.rollout_resources)
        shared = Bundle(roles=(LEARNER, ENGINE), num_gpus=1, num_cpus=2, resources=tuple(both.items()))
        return (shared, *bundles)
    engines = rollout.num_workers if ENGINE in roles else 0
    bundles = [engine_bundle(recipe)] * engines + bundles
    left = cluster.learner_gpus if LEARNER in roles else 0
    learner = []
    while left > 0:
        size = min(left, max(gpus_per_node, 1))
        resources = tuple(cluster.learner_resources.items())
        learner.append(Bundle(roles=(LEARNER,), num_gpus=size, num_cpus=size, resources=resources))
        left -= size
    return (*learner, *bundles)


def engine_bundle(recipe: Recipe) -> Bundle:
    """One engine's."""
    resources = tuple(recipe.cluster.rollout_resources.items())
    return Bundle(roles=(ENGINE,), num_gpus=recipe.rollout.tensor_parallel_size, num_cpus=1, resources=resources)


def reward_bundle(recipe: Recipe) -> Bundle:
    """One reward worker's."""
    resources = tuple(recipe.cluster.reward_resources.items())
    num_gpus, num_cpus = recipe.reward.num_gpus_per_worker, reward_cpus(recipe)
    return Bundle(roles=(REWARD,), num_gpus=num_gpus, num_cpus=num_cpus, resources=resources)


def reward_cpus(recipe: Recipe) -> float:
    """CPUs that a reward worker asks Ray for: none of a local Ray, whose machine is the run's anyway."""
    return 0 if recipe.cluster.address is None else recipe.reward.num_cpus_per_worker


def reward_workers_per_gpu(recipe: Recipe) -> int:
    """How many reward workers share a GPU."""
    return math.floor(1 / recipe.reward.num_gpus_per_worker + RAY_UNIT)


def reward_gpus(recipe: Recipe) -> int:
    """GPUs of all reward workers of the start."""
    if not recipe.reward.num_gpus_per_worker:
        return 0
    return math.ceil(recipe.reward.num_workers / reward_workers_per_gpu(recipe))


def share_of(resources: Mapping[str, float], num_actors: int) -> dict[str, float]:
    """What each of several actors takes of the bundle's named resources that they share.

    Rounded down to what Ray counts in: rounded to the nearest, the last one would find too little left.
    """
    units = {name: math.floor(amount / num_actors / RAY_UNIT + RAY_UNIT) for name, amount in resources.items()}
    return {name: round(number * RAY_UNIT, 4) for name, number in units.items() if number}


def fit(nodes: Sequence[Node], bundles: Sequence[Bundle]) -> tuple[str, ...]:
    """The node of each bundle, by one of two orders: what is large first, where it leaves the least behind; or what
    needs a mark first, where it takes the fewest marks from others. What neither can place is refused.

    Raises:
        ActorStartError: they cannot all be placed; says what is missing where, and what would help.
    """
    by_size = _attempt(nodes, bundles, marks_first=False)
    placed = by_size if not isinstance(by_size, _Refusal) else _attempt(nodes, bundles, marks_first=True)
    if isinstance(placed, _Refusal):
        assert isinstance(by_size, _Refusal)
        raise ActorStartError(_why_not(nodes, bundles, by_size))
    return placed


@dataclass(slots=True)
class _Room:
    """What is left on a node."""

    node: Node
    gpus: list[float]
    """Of each GPU."""
    cpus: float
    resources: dict[str, float]

    @classmethod
    def of(cls, node: Node) -> _Room:
        return cls(node, [1.0] * int(node.num_gpus), node.num_cpus, dict(node.resources))

    def has(self, bundle: Bundle) -> bool:
        named = all(self.resources.get(name, 0.0) + RAY_UNIT / 2 >= amount for name, amount in bundle.resources)
        return named and self.cpus >= bundle.num_cpus and self._gpus_for(bundle) is not None

    def take(self, bundle: Bundle) -> None:
        for index in self._gpus_for(bundle) or ():
            self.gpus[index] -= min(bundle.num_gpus, 1.0)
        self.cpus -= bundle.num_cpus
        for name, amount in bundle.resources:
            self.resources[name] -= amount

    def _gpus_for(self, bundle: Bundle) -> list[int] | None:
        """Whole GPUs, or the fullest one that has the part; none: there are too few."""
        needed = min(bundle.num_gpus, 1.0) - RAY_UNIT / 2
        fitting = sorted((left, index) for index, left in enumerate(self.gpus) if left >= needed)
        number = math.ceil(bundle.num_gpus)
        return [index for _, index in fitting[:number]] if len(fitting) >= number else None

    def __str__(self) -> str:
        named = "".join(f", {name} {amount:g}" for name, amount in self.resources.items())
        return f"{self.node.name} {sum(self.gpus):g} GPUs, {self.cpus:g} CPUs{named}"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The first bundle without a place, and what the others have left."""

    bundle: Bundle
    rooms: list[_Room]


def _attempt(nodes: Sequence[Node], bundles: Sequence[Bundle], *, marks_first: bool) -> tuple[str, ...] | _Refusal:
    rooms = [_Room.of(node) for node in nodes]

    def urgency(index: int) -> tuple[float, ...]:
        bundle = bundles[index]
        return (-len(bundle.resources) if marks_first else 0, -bundle.num_gpus)

    def cost(room: _Room, bundle: Bundle) -> tuple[float, ...]:
        unused_marks = len(room.resources.keys() - dict(bundle.resources).keys())
        left = sum(room.gpus) - bundle.num_gpus
        return (unused_marks, left) if marks_first else (left, unused_marks)

    placed: dict[int, str] = {}
    for index in sorted(range(len(bundles)), key=urgency):
        bundle = bundles[index]
        fitting = [room for room in rooms if room.has(bundle)]
        if not fitting:
            return _Refusal(bundle, rooms)
        room = min(fitting, key=lambda room: (cost(room, bundle), room.node.name))
        room.take(bundle)
        placed[index] = room.node.name
    return tuple(placed[index] for index in range(len(bundles)))


def _why_not(nodes: Sequence[Node], bundles: Sequence[Bundle], refusal: _Refusal) -> str:
    bundle, role = refusal.bundle, refusal.bundle.roles[0]
    who, named = _NAMES[role], " and ".join(f"{name} {amount:g}" for name, amount in bundle.resources)
    marked = [node for node in nodes if node.offers(dict(bundle.resources))]
    if named and not marked:
        return (
            f"{who} needs a node with {named}, and no node has it: start one with `ray start --resources=…`, change "
            f"cluster.{_KEYS[role]}, or wait for one with cluster.wait_for_nodes_s"
        )
    largest = max((node.num_gpus for node in marked), default=0)
    alike, of_marked = sum(b.num_gpus for b in bundles if b.resources == bundle.resources), _gpus_of(marked)
    wanted, there = sum(each.num_gpus for each in bundles), _gpus_of(nodes)
    mark, such = (f" with {named}", "such ") if named else ("", "")
    if bundle.num_gpus > largest:
        reason = f"{who} needs {bundle.num_gpus:g} GPUs on one node{mark}, and the largest {such}node has {largest:g}"
    elif named and alike > of_marked:
        reason = f"the run needs {alike:g} GPUs on nodes{mark}, and they have {of_marked:g}"
    elif wanted > there:
        reason = f"the run needs {wanted:g} GPUs, and the cluster has {there:g}"
    else:
        left = "; ".join(map(str, refusal.rooms))
        reason = f"{who} needs {bundle} on one node; left after the others: {left}"
    listing = ", ".join(f"{node.name} {node.num_gpus:g}" for node in nodes if node.num_gpus) or "none"
    return (
        f"{reason} (GPUs by node: {listing}): lower rollout.tensor_parallel_size, rollout.num_workers or "
        "cluster.learner_gpus, add nodes, or wait for them with cluster.wait_for_nodes_s"
    )


def _gpus_of(nodes: Sequence[Node]) -> float:
    return sum(node.num_gpus for node in nodes)
