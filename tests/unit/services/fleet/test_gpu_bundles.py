"""Bundles and nodes: what belongs together stays on one node, and what cannot fit is refused with the reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayzero.services.fleet.gpu_bundles import (
    ENGINE,
    LEARNER,
    REWARD,
    ROLES,
    Bundle,
    Node,
    bundles_of,
    fit,
    reward_gpus,
    share_of,
)
from rayzero.services.schema.errors import ActorStartError
from tests.unit.services.planning.test_memory_plan import recipe

BOTH = (LEARNER, ENGINE)


def node(name: str, num_gpus: float, **resources: float) -> Node:
    return Node(name=name, num_gpus=num_gpus, num_cpus=16, resources=resources)


def sizes(bundles: tuple[Bundle, ...]) -> list[tuple[str, float]]:
    return [("+".join(bundle.roles), bundle.num_gpus) for bundle in bundles]


def test_bundles_of_a_recipe() -> None:
    tensor_parallel = recipe(rollout={"num_workers": 2, "tensor_parallel_size": 4}, cluster={"learner_gpus": 2})
    assert sizes(bundles_of(tensor_parallel, BOTH, 8)) == [(LEARNER, 2), (ENGINE, 4), (ENGINE, 4)]
    assert sizes(bundles_of(tensor_parallel, (ENGINE,), 8)) == [(ENGINE, 4), (ENGINE, 4)]
    large = recipe(cluster={"learner_gpus": 20, "learner_resources": {"learner": 1}})
    assert sizes(bundles_of(large, (LEARNER,), 8)) == [(LEARNER, 8), (LEARNER, 8), (LEARNER, 4)]
    assert bundles_of(large, (LEARNER,), 8)[0].request == {"GPU": 8, "CPU": 8, "learner": 1}, "a mark of the node"
    shared = recipe(cluster={"colocate": "shared"})
    assert sizes(bundles_of(shared, BOTH, 8)) == [("learner+engine", 1)]
    same = {"learner_resources": {"node": 1}, "rollout_resources": {"node": 1, "rollout": 1}}
    (both,) = bundles_of(recipe(cluster={"colocate": "shared", **same}), BOTH, 8)
    assert both.request == {"GPU": 1, "CPU": 2, "node": 2, "rollout": 1}, "each of the two takes its own"


def test_engines_on_the_learners_gpus_have_a_bundle_each_with_its_ranks() -> None:
    node = recipe(
        cluster={"learner_gpus": 8, "colocate": "shared", "learner_resources": {"node": 1}},
        rollout={"num_workers": 2, "max_workers": 2, "tensor_parallel_size": 4},
    )
    assert sizes(bundles_of(node, BOTH, 8)) == [("learner+engine", 4)] * 2
    assert bundles_of(node, BOTH, 8)[0].request == {"GPU": 4, "CPU": 5, "node": 1}
    assert sizes(bundles_of(node, (ENGINE,), 8)) == [(ENGINE, 4)] * 2, "engines alone have GPUs of their own"


def test_reward_workers_have_bundles_where_they_have_gpus() -> None:
    rewards = {"num_workers": 3, "num_gpus_per_worker": 0.5, "num_cpus_per_worker": 2}
    local = recipe(reward=rewards)
    assert sizes(bundles_of(local, ROLES, 8)) == [(LEARNER, 1), (ENGINE, 1), *[(REWARD, 0.5)] * 3]
    assert bundles_of(local, (REWARD,), 8)[0].request == {"GPU": 0.5}
    cluster = recipe(reward=rewards, cluster={"address": "auto", "reward_resources": {"reward": 1}})
    assert bundles_of(cluster, (REWARD,), 8)[0].request == {"GPU": 0.5, "CPU": 2, "reward": 1}
    assert reward_gpus(local) == 2
    shared = recipe(reward=rewards, cluster={"colocate": "shared"})
    assert sizes(bundles_of(shared, ROLES, 8)) == [("learner+engine", 1), *[(REWARD, 0.5)] * 3]
    assert sizes(bundles_of(shared, (REWARD,), 8)) == [(REWARD, 0.5)] * 3
    assert bundles_of(recipe(), (REWARD,), 8) == () and reward_gpus(recipe()) == 0


def test_ranks_share_what_marks_their_node() -> None:
    assert share_of({"learner": 1, "rack": 4}, 8) == {"learner": 0.125, "rack": 0.5}
    for number in range(1, 65):
        (share,) = share_of({"learner": 1}, number).values()
        assert round(number * share * 10_000) <= 10_000, "Ray counts in ten-thousandths: the last rank finds its part"
    assert share_of({"tiny": 0.0001}, 2) == {}


def test_large_groups_are_placed_before_small_ones_take_their_room() -> None:
    bundles = bundles_of(recipe(rollout={"num_workers": 3, "tensor_parallel_size": 2}), BOTH, 4)
    assert fit([node("a", 4), node("b", 3)], bundles) == ("b", "b", "a", "a")


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("a", 2), node("b", 3)], r"an engine needs 4 GPUs on one node, and the largest node has 3 .*a 2, b 3"),
        ([node("a", 4), node("b", 4)], r"the run needs 9 GPUs, and the cluster has 8"),
        (
            [node("a", 5), node("b", 2), node("c", 2)],
            r"an engine needs 4 GPUs and 1 CPUs on one node; left after the others: a 1 GPUs, 15 CPUs; b 2 GPUs,",
        ),
        ([], r"largest node has 0 .*none.*cluster\.wait_for_nodes_s"),
    ],
)
def test_what_cannot_fit_is_refused(nodes: list[Node], reason: str) -> None:
    bundles = bundles_of(recipe(rollout={"num_workers": 2, "tensor_parallel_size": 4}), BOTH, 8)
    with pytest.raises(ActorStartError, match=reason):
        fit(nodes, bundles)


LEARNER_OF_8 = {"learner_gpus": 8, "learner_resources": {"learner": 1}}


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (
            [node("a", 8), node("b", 8)],
            r"the learner needs a node with learner 1, and no node has it.*learner_resources",
        ),
        (
            [node("a", 4, learner=1), node("b", 8)],
            r"the learner needs 8 GPUs on one node with learner 1, and the largest such node has 4",
        ),
        ([node("a", 8, learner=0.5), node("b", 8)], r"no node has it"),
        ([node("a", 8, learner=1)], r"the run needs 9 GPUs, and the cluster has 8"),
    ],
)
def test_a_missing_mark_is_named(nodes: list[Node], reason: str) -> None:
    bundles = bundles_of(recipe(cluster=LEARNER_OF_8), BOTH, 8)
    with pytest.raises(ActorStartError, match=reason):
        fit(nodes, bundles)


def test_a_mark_that_is_taken_is_named() -> None:
    marked = recipe(rollout={"num_workers": 3}, cluster={"rollout_resources": {"rollout": 1}})
    nodes = [node("a", 4, rollout=2), node("b", 4)]
    with pytest.raises(ActorStartError, match=r"1 GPUs, 1 CPUs and rollout 1 on one node; left .*a 2 GPUs.*rollout 0"):
        fit(nodes, bundles_of(marked, BOTH, 4))


def test_what_needs_no_mark_does_not_keep_a_node_from_what_does() -> None:
    """The larger engine, placed first where it leaves the least, would take the one node that the learner may have."""
    engine_of_8 = recipe(rollout={"tensor_parallel_size": 8}, cluster=LEARNER_OF_8 | {"learner_gpus": 4})
    assert fit([node("a", 8, learner=1), node("b", 8)], bundles_of(engine_of_8, BOTH, 8)) == ("a", "b")


def test_parts_of_gpus_are_parts_of_one_gpu() -> None:
    three = bundles_of(recipe(reward={"num_workers": 3, "num_gpus_per_worker": 0.6}), (REWARD,), 8)
    assert fit([node("a", 3)], three) == ("a", "a", "a")
    with pytest.raises(
        ActorStartError, match=r"a reward worker needs 0\.6 GPUs and 0 CPUs on one node; left .*0\.8 GPUs"
    ):
        fit([node("a", 2)], three)
    ten = bundles_of(recipe(reward={"num_workers": 10, "num_gpus_per_worker": 0.1}), (REWARD,), 8)
    assert fit([node("a", 1)], ten) == ("a",) * 10


@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=5),
    st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=10),
)
def test_no_node_is_given_more_than_it_has(node_gpus: list[int], wanted: list[int]) -> None:
    nodes = [node(str(index), gpus) for index, gpus in enumerate(node_gpus)]
    bundles = [Bundle(roles=(ENGINE,), num_gpus=size, num_cpus=1) for size in wanted]
    try:
        placed = fit(nodes, bundles)
    except ActorStartError:
        return
    for index, gpus in enumerate(node_gpus):
        assert sum(size for size, name in zip(wanted, placed, strict=True) if name == str(index)) <= gpus
