from __future__ import annotations

import pytest

from rayzero.services.schema.broadcast.deadline import bounded
from rayzero.services.schema.broadcast.transport import (
    Peer,
    Route,
    Transport,
    choose_link,
    links_text,
    parse_links,
    rank_within,
)
from rayzero.services.schema.errors import WeightSyncError

LEARNER = Peer(host="a", process=1, gpu="GPU-1", sees_learner=True)
SAME_GPU = Peer(host="a", process=2, gpu="GPU-1", sees_learner=True)
OTHER_GPU = Peer(host="a", process=3, gpu="GPU-2", sees_learner=True)
OTHER_NODE = Peer(host="b", process=4, gpu="GPU-3")
OTHER_CONTAINER = Peer(host="b", process=7, gpu="GPU-1")
CPU_HERE = Peer(host="a", process=5, sees_learner=True)
CPU_THERE = Peer(host="b", process=6)


@pytest.mark.parametrize(
    ("receiver", "transport", "link"),
    [
        (SAME_GPU, "auto", Route.IPC),
        (OTHER_GPU, "auto", Route.NCCL),
        (OTHER_NODE, "auto", Route.NCCL),
        (CPU_HERE, "auto", Route.MEMORY),
        (CPU_THERE, "auto", Route.GLOO),
        (OTHER_GPU, "nccl", Route.NCCL),
        (SAME_GPU, "ipc", Route.IPC),
        (SAME_GPU, "gloo", Route.MEMORY),
        (OTHER_NODE, "gloo", Route.GLOO),
        (OTHER_CONTAINER, "gloo", Route.GLOO),
    ],
)
def test_link_follows_from_where_both_compute(receiver: Peer, transport: Transport, link: Route) -> None:
    assert choose_link(LEARNER, receiver, transport) is link


@pytest.mark.parametrize(("receiver", "transport"), [(SAME_GPU, "nccl"), (CPU_HERE, "nccl"), (OTHER_GPU, "ipc")])
def test_transport_that_cannot_reach_is_refused(receiver: Peer, transport: Transport) -> None:
    with pytest.raises(WeightSyncError, match=r"the learner is on GPU GPU-1 of a, the engine on .*weight_transport"):
        choose_link(LEARNER, receiver, transport)


@pytest.mark.parametrize("transport", ["auto", "nccl", "ipc"])
def test_one_gpu_in_two_containers_is_refused(transport: Transport) -> None:
    with pytest.raises(WeightSyncError, match=r"on one GPU \(GPU-1\) and call their host a and b.*transport: gloo"):
        choose_link(LEARNER, OTHER_CONTAINER, transport)


def test_what_goes_over_the_store_comes_back() -> None:
    links = {1: Route.NCCL, 2: Route.IPC, 3: Route.NCCL}
    assert parse_links(links_text(links)) == links
    assert Peer.parse(str(OTHER_NODE)) == OTHER_NODE
    assert [rank_within(links, rank) for rank in (1, 2, 3)] == [(1, 3), (1, 2), (2, 3)]


def test_bounded_returns_raises_and_gives_up() -> None:
    assert bounded(lambda: 3, 5) == 3
    with pytest.raises(KeyError):
        bounded(lambda: dict[str, int]()["missing"], 5)
    with pytest.raises(TimeoutError):
        bounded(lambda: __import__("time").sleep(1), 0.1)
    with pytest.raises(TimeoutError):
        bounded(lambda: __import__("time").sleep(1), 5, lambda: True)
