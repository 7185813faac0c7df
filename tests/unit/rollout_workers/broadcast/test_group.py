"""Both halves of the wire, over real gloo on the loopback, in threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import pytest
import torch

from rayzero.learner.broadcast.sender import WeightSender
from rayzero.learner.broadcast.shared_memory import SharedBuffer
from rayzero.rollout_workers.broadcast.buffer import StagingBuffer
from rayzero.rollout_workers.broadcast.group import ReceiverGroup
from rayzero.services.schema.broadcast.transport import Route
from rayzero.services.schema.broadcast.wire import SharedBufferName
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.weights import Rendezvous, WeightManifest
from tests.system import LOOPBACKS

T = TypeVar("T")
DEADLINE_S = 10.0
SHORT_S = 0.3


def weights(seed: int = 0) -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(f"layer.{index}", torch.randn(50, 30, generator=generator)) for index in range(5)]


def begin(function: Callable[..., T], *args: object) -> Future[T]:
    executor = ThreadPoolExecutor(max_workers=1)
    future = executor.submit(function, *args)
    executor.shutdown(wait=False)
    return future


def receive(group: ReceiverGroup, manifest: WeightManifest, staging: StagingBuffer) -> list[tuple[str, torch.Tensor]]:
    group.announce(manifest.policy_version)
    for index in group.take(manifest, staging, DEADLINE_S):
        staging.verify_bucket(index)
    return list(staging.tensors())


def meet(sender: WeightSender, num_receivers: int) -> list[ReceiverGroup]:
    rendezvous = sender.open(num_receivers)
    joins = [begin(ReceiverGroup, rendezvous, rank, DEADLINE_S) for rank in range(1, num_receivers + 1)]
    sender.accept()
    return [join.result() for join in joins]


@pytest.mark.parametrize("host", LOOPBACKS)
@pytest.mark.parametrize("share_memory", [True, False], ids=["shared memory", "gloo"])
def test_all_receivers_hold_what_was_sent_version_after_version(share_memory: bool, host: str) -> None:
    sender = WeightSender(torch.float32, host=host, deadline_s=DEADLINE_S, bucket_bytes=7000, share_memory=share_memory)
    groups = meet(sender, 3)
    assert {group.kind for group in groups} == {Route.MEMORY if share_memory else Route.GLOO}
    stagings = [StagingBuffer() for _ in groups]
    for version in (1, 2):
        manifest = sender.prepare(weights(version), version)
        assert len(manifest.bucket_bytes) == 5
        received = [begin(receive, group, manifest, staging) for group, staging in zip(groups, stagings, strict=True)]
        sender.broadcast()
        for future in received:
            for (name, tensor), (sent_name, sent) in zip(future.result(), weights(version), strict=True):
                assert name == sent_name
                assert torch.equal(tensor, sent)
    sender.close()
    for group in groups:
        group.close()


def test_receiver_that_does_not_join_is_named() -> None:
    sender = WeightSender(torch.float32, deadline_s=SHORT_S)
    rendezvous = sender.open(2)
    joined = begin(ReceiverGroup, rendezvous, 2, SHORT_S)
    with pytest.raises(WeightSyncError, match="rank 1 did not join"):
        sender.accept()
    with pytest.raises(WeightSyncError, match=r"rank 2 .* could not meet its peers"):
        joined.result()


def test_receiver_that_is_not_ready_is_named_before_anything_is_sent() -> None:
    sender = WeightSender(torch.float32, deadline_s=DEADLINE_S)
    first, second = meet(sender, 2)
    sender._opened._deadline_s = SHORT_S
    sender.prepare(weights(), 1)
    first.announce(1)
    begun = time.monotonic()
    with pytest.raises(WeightSyncError, match=r"rank 2 \(host .*\) not ready for version 1"):
        sender.broadcast()
    assert time.monotonic() - begun < DEADLINE_S / 2
    sender.close()
    first.close()
    second.close()


def test_sender_that_dies_ends_the_receivers_wait() -> None:
    sender = WeightSender(torch.float32, share_memory=False, deadline_s=DEADLINE_S)
    (group,) = meet(sender, 1)
    manifest = sender.prepare(weights(), 1)
    waiting = begin(receive, group, manifest, StagingBuffer())
    time.sleep(0.1)
    sender.close()
    with pytest.raises(WeightSyncError, match="did not get its weights"):
        waiting.result(timeout=DEADLINE_S)


def test_receiver_that_dies_ends_the_broadcast_and_the_rest_meet_anew() -> None:
    sender = WeightSender(torch.float32, share_memory=False, deadline_s=DEADLINE_S, bucket_bytes=7000)
    doomed, survivor = meet(sender, 2)
    manifest = sender.prepare(weights(), 1)
    staging = StagingBuffer()
    doomed.announce(1)
    received = begin(receive, survivor, manifest, staging)
    doomed.close()
    with pytest.raises(WeightSyncError, match="broke off"):
        sender.broadcast()
        sender.broadcast()  # a small first bucket may still have fitted into the dead one's socket
    sender.close()
    with pytest.raises(WeightSyncError):
        received.result(timeout=DEADLINE_S)
    (again,) = meet(sender, 1)
    received = begin(receive, again, manifest, staging)
    sender.broadcast()
    assert torch.equal(received.result()[4][1], weights()[4][1])
    sender.close()
    again.close()


def test_receiver_gives_up_when_there_is_no_learner() -> None:
    begun = time.monotonic()
    with pytest.raises(WeightSyncError, match=r"could not meet its peers in 0.3 s"):
        ReceiverGroup(Rendezvous(host="127.0.0.1", port=9, world_size=2), 1, SHORT_S)
    assert time.monotonic() - begun < 5


def test_order_of_calls_is_checked() -> None:
    sender = WeightSender(torch.float32)
    with pytest.raises(WeightSyncError, match="prepare weights first"):
        sender.broadcast()
    sender.prepare(weights(), 1)
    with pytest.raises(WeightSyncError, match="open one first"):
        sender.broadcast()
    sender.open(1)
    with pytest.raises(WeightSyncError, match="has not met: accept it first"):
        sender.broadcast()
    sender.close()


def test_receivers_here_and_elsewhere_take_the_same_broadcast(monkeypatch: pytest.MonkeyPatch) -> None:
    sees_nothing_of_the_third = iter([True, False, True])
    monkeypatch.setattr(SharedBufferName, "is_here", lambda name: next(sees_nothing_of_the_third))
    sender = WeightSender(torch.float32, deadline_s=DEADLINE_S, bucket_bytes=7000)
    groups = meet(sender, 3)
    assert sorted(group.kind for group in groups) == [Route.GLOO, Route.MEMORY, Route.MEMORY]
    manifest = sender.prepare(weights(3), 3)
    received = [begin(receive, group, manifest, StagingBuffer()) for group in groups]
    sender.broadcast()
    for future in received:
        assert all(
            torch.equal(tensor, sent) for (_, tensor), (_, sent) in zip(future.result(), weights(3), strict=True)
        )
    sender.close()
    for group in groups:
        group.close()


def test_shared_buffer_of_another_label_is_another_machines() -> None:
    buffer = SharedBuffer(100)
    assert buffer.memory.numel() == 100
    assert SharedBufferName.parse(str(buffer.name)) == buffer.name
    assert buffer.name.is_here()
    assert not replace(buffer.name, label="rayzero-another").is_here()
    buffer.close()
    assert not buffer.name.is_here()
