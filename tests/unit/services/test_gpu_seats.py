"""Bundles and nodes: what belongs together stays on one node, and what cannot fit is refused with the reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gpu_seats import ENGINE, LEARNER, Bundle, Node, bundles_of, fit
from services.schema.errors import ActorStartError
from tests.unit.services.test_memory_plan import recipe

BOTH = (LEARNER, ENGINE)


def node(name: str, num_gpus: float) -> Node:
    return Node(name=name, num_gpus=num_gpus, num_cpus=16)


def sizes(bundles: tuple[Bundle, ...]) -> list[tuple[str, int]]:
    return [("+".join(bundle.roles), bundle.num_gpus) for bundle in bundles]


def test_bundles_of_a_recipe() -> None:
    tensor_parallel = recipe(rollout={"num_workers": 2, "tensor_parallel_size": 4}, cluster={"learner_gpus": 2})
    assert sizes(bundles_of(tensor_parallel, BOTH, 8)) == [(LEARNER, 2), (ENGINE, 4), (ENGINE, 4)]
    assert sizes(bundles_of(tensor_parallel, (ENGINE,), 8)) == [(ENGINE, 4), (ENGINE, 4)]
    large = recipe(cluster={"learner_gpus": 20, "learner_resources": {"learner": 1}})
    assert sizes(bundles_of(large, (LEARNER,), 8)) == [(LEARNER, 8), (LEARNER, 8), (LEARNER, 4)]
    assert bundles_of(large, (LEARNER,), 8)[0].request == {"GPU": 8, "CPU": 8, "learner": 8}
    shared = recipe(cluster={"colocate": "shared"})
    assert sizes(bundles_of(shared, BOTH, 8)) == [("learner+engine", 1)]


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
            r"an engine needs 4 GPUs and 1 CPUs on one node; left after",
        ),
        ([], r"largest node has 0 .*none.*cluster\.wait_for_nodes_s"),
    ],
)
def test_what_cannot_fit_is_refused(nodes: list[Node], reason: str) -> None:
    bundles = bundles_of(recipe(rollout={"num_workers": 2, "tensor_parallel_size": 4}), BOTH, 8)
    with pytest.raises(ActorStartError, match=reason):
        fit(nodes, bundles)


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
