from __future__ import annotations

import numpy as np
import pytest
import torch

from rayzero.services.schema.broadcast.deadline import bounded
from rayzero.services.schema.broadcast.digest import LANES, fingerprint_text, fingerprints
from rayzero.services.schema.broadcast.transport import (
    Peer,
    Route,
    Transport,
    choose_link,
    links_text,
    parse_links,
    rank_within,
)
from rayzero.services.schema.broadcast.wire import ALIGNMENT_BYTES, Extent
from rayzero.services.schema.errors import WeightSyncError

LEARNER = Peer(host="a", process=1, gpu="GPU-1", sees_learner=True)
SAME_GPU = Peer(host="a", process=2, gpu="GPU-1", sees_learner=True)
OTHER_GPU = Peer(host="a", process=3, gpu="GPU-2", sees_learner=True)
OTHER_NODE = Peer(host="b", process=4, gpu="GPU-1")
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
    ],
)
def test_link_follows_from_where_both_compute(receiver: Peer, transport: Transport, link: Route) -> None:
    assert choose_link(LEARNER, receiver, transport) is link


@pytest.mark.parametrize(("receiver", "transport"), [(SAME_GPU, "nccl"), (CPU_HERE, "nccl"), (OTHER_GPU, "ipc")])
def test_transport_that_cannot_reach_is_refused(receiver: Peer, transport: Transport) -> None:
    with pytest.raises(WeightSyncError, match=r"the learner is on GPU GPU-1 of a, the engine on .*weight_transport"):
        choose_link(LEARNER, receiver, transport)


def test_what_goes_over_the_store_comes_back() -> None:
    links = {1: Route.NCCL, 2: Route.IPC, 3: Route.NCCL}
    assert parse_links(links_text(links)) == links
    assert Peer.parse(str(OTHER_NODE)) == OTHER_NODE
    assert [rank_within(links, rank) for rank in (1, 2, 3)] == [(1, 3), (1, 2), (2, 3)]


def sums(words: np.ndarray, extents: list[Extent]) -> list[int]:
    return list(fingerprints(words, np.arange(LANES), np.arange(len(words)), extents).tolist())


def test_fingerprints_see_every_flip_and_exchange_and_name_the_tensor() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(-(2**31), 2**31, (40, LANES)).astype(np.int32)
    extents = [
        Extent(bucket=0, offset_bytes=first * ALIGNMENT_BYTES, num_bytes=(last - first) * ALIGNMENT_BYTES)
        for first, last in ((0, 7), (7, 8), (8, 40))
    ]
    before = sums(words, extents)
    for _ in range(50):
        changed = words.copy()
        row, lane, bit = rng.integers(40), rng.integers(LANES), rng.integers(32)
        changed[row, lane] ^= np.int32(np.uint32(1) << np.uint32(bit)) if bit < 31 else np.int32(-(2**31))
        differs = [old != new for old, new in zip(before, sums(changed, extents), strict=True)]
        assert differs == [row < 7, row == 7, row > 7]
        (r1, l1), (r2, l2) = rng.integers((40, LANES), size=(2, 2))
        changed = words.copy()
        changed[r1, l1], changed[r2, l2] = words[r2, l2], words[r1, l1]
        assert (sums(changed, extents) == before) == (words[r1, l1] == words[r2, l2])


def test_torch_and_numpy_agree() -> None:
    words = np.random.default_rng(1).integers(-(2**31), 2**31, (9, LANES)).astype(np.int32)
    extents = [Extent(bucket=0, offset_bytes=64, num_bytes=500)]
    lanes, rows = torch.arange(LANES), torch.arange(9)
    assert fingerprints(torch.from_numpy(words), lanes, rows, extents).tolist() == sums(words, extents)
    assert fingerprint_text(-1) == "sum64:" + "f" * 16


def test_bounded_returns_raises_and_gives_up() -> None:
    assert bounded(lambda: 3, 5) == 3
    with pytest.raises(KeyError):
        bounded(lambda: {}["missing"], 5)
    with pytest.raises(TimeoutError):
        bounded(lambda: __import__("time").sleep(1), 0.1)
    with pytest.raises(TimeoutError):
        bounded(lambda: __import__("time").sleep(1), 5, lambda: True)
