"""The NCCL path with gloo in NCCL's place: messages cut alike at both ends, every way in which a peer can be lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from rayzero.learner.broadcast import gpu_links as sending_links
from rayzero.learner.broadcast.sender import WeightSender
from rayzero.rollout_workers import engine_process
from rayzero.rollout_workers.broadcast import gpu_links
from rayzero.rollout_workers.broadcast import group as receiving
from rayzero.rollout_workers.broadcast.buffer import StagingBuffer
from rayzero.rollout_workers.broadcast.group import ReceiverGroup
from rayzero.rollout_workers.environment import engine_environment
from rayzero.services.schema.broadcast.transport import Peer, Route
from rayzero.services.schema.errors import WeightSyncError
from tests import gloo_for_nccl
from tests.integration.test_weight_sync import SETTINGS, Pair, serves_adapters
from tests.models import build_tiny_model
from tests.unit.rollout_workers.broadcast.test_group import begin, meet, receive, weights
from tests.unit.rollout_workers.broadcast.test_intake import Receiver

DEADLINE_S = 15.0
SHORT_S = 0.5


@pytest.fixture(autouse=True)
def nccl_is_gloo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gloo_for_nccl.install_sender(monkeypatch.setattr)
    gloo_for_nccl.install_receiver(monkeypatch.setattr)
    numbers = iter(range(1, 10))

    def receiver(device: torch.device, sees_learner: bool) -> Peer:
        number = next(numbers)
        return Peer(host=f"node-{number}", process=number, gpu=f"GPU-{number}", sees_learner=sees_learner)

    monkeypatch.setattr(receiving, "this_peer", receiver)
    yield
    gloo_for_nccl.STORES.clear()


def test_broadcast_arrives_version_after_version() -> None:
    sender = WeightSender(torch.bfloat16, deadline_s=DEADLINE_S, bucket_bytes=5000)
    groups = meet(sender, 2)
    assert {group.kind for group in groups} == {Route.NCCL}
    stagings = [StagingBuffer() for _ in groups]
    for version in (1, 2):
        manifest = sender.prepare(weights(version), version)
        received = [begin(receive, group, manifest, staging) for group, staging in zip(groups, stagings, strict=True)]
        sender.broadcast()
        for future in received:
            for (name, tensor), (sent_name, sent) in zip(future.result(), weights(version), strict=True):
                assert name == sent_name
                assert torch.equal(tensor, sent.bfloat16())
    end(sender, groups)


def test_buckets_are_streamed_and_a_receiver_that_stops_is_named() -> None:
    sender = WeightSender(torch.bfloat16, deadline_s=DEADLINE_S, bucket_bytes=5000)
    first, silent = (Receiver(group) for group in meet(sender, 2))
    for version in (1, 2):
        manifest = sender.announce([(name, tensor.shape) for name, tensor in weights()], version)
        received = [begin(receiver.take, manifest) for receiver in (first, silent)]
        sender.stream(weights(version))
        for future, receiver in zip(received, (first, silent), strict=True):
            future.result(DEADLINE_S)
            assert all(torch.equal(receiver.tensors[name], sent.bfloat16()) for name, sent in weights(version))
    nccl = next(iter(sender._opened._copied))
    assert isinstance(nccl, sending_links.NcclSender)
    nccl._deadline_s = SHORT_S
    manifest = sender.announce([(name, tensor.shape) for name, tensor in weights()], 3)
    going = begin(first.take, manifest)
    hang_broadcast(nccl, 3 * SHORT_S)
    silent.group.announce(3)  # and then never takes part
    with pytest.raises(WeightSyncError, match=r"rank 2 \(host node-., GPU GPU-., .*\) did not take version 3"):
        sender.stream(weights(3))
    silent.group.close()
    going.exception(DEADLINE_S)
    end(sender, [first.group, silent.group])


def test_receiver_that_never_connects_is_named_with_host_and_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = WeightSender(torch.float32, deadline_s=SHORT_S)
    hangs = threading.Event()

    class Hanging(gloo_for_nccl.GlooLibrary):
        def connect(self, unique_id: bytes, rank: int, world_size: int) -> gloo_for_nccl.GlooCommunicator:
            hangs.wait(DEADLINE_S)
            raise RuntimeError("there is nothing left to connect to")

    monkeypatch.setattr(gpu_links, "engine_nccl", Hanging)
    rendezvous = sender.open(1)
    joined = begin(ReceiverGroup, rendezvous, 1, SHORT_S)
    begun = time.monotonic()
    with pytest.raises(WeightSyncError, match=r"rank 1 \(host node-1, GPU GPU-1, .*\) did not connect over NCCL"):
        sender.accept()
    assert time.monotonic() - begun < 4 * SHORT_S + 1
    with pytest.raises(WeightSyncError, match=r"host node-1, GPU GPU-1"):
        joined.result(DEADLINE_S)
    hangs.set()


def test_silent_receiver_is_named_the_group_is_aborted_and_built_anew() -> None:
    sender = WeightSender(torch.float32, deadline_s=DEADLINE_S)
    first, silent = meet(sender, 2)
    manifest = sender.prepare(weights(), 1)
    nccl = next(iter(sender._opened._copied))
    assert isinstance(nccl, sending_links.NcclSender)
    nccl._deadline_s = SHORT_S
    silent.announce(1)  # and then never takes part
    received: Future[object] = begin(receive, first, manifest, StagingBuffer())
    hang_broadcast(nccl)
    with pytest.raises(WeightSyncError, match=r"rank 2 \(host node-., GPU GPU-., .*\) did not take version 1"):
        sender.broadcast()
    silent.close()
    first.close()
    received.exception(DEADLINE_S)
    (again,) = meet(sender, 1)
    received = begin(receive, again, manifest, StagingBuffer())
    sender.broadcast()
    assert received.exception(DEADLINE_S) is None
    end(sender, [again])


def test_abort_frees_a_sender_that_waits() -> None:
    sender = WeightSender(torch.float32, deadline_s=DEADLINE_S)
    (group,) = meet(sender, 1)
    sender.prepare(weights(), 1)
    nccl = next(iter(sender._opened._copied))
    assert isinstance(nccl, sending_links.NcclSender)
    hang_broadcast(nccl)
    group.announce(1)
    sending_ended = begin(sender.broadcast)
    time.sleep(0.2)
    sender.abort()
    with pytest.raises(WeightSyncError, match="did not take version 1"):
        sending_ended.result(5)
    end(sender, [group])


def test_receiver_aborts_what_does_not_come() -> None:
    sender = WeightSender(torch.float32, deadline_s=DEADLINE_S)
    (group,) = meet(sender, 1)
    manifest = sender.prepare(weights(), 1)
    with pytest.raises(WeightSyncError, match=r"waited 0\.5 s and was aborted"):
        list(group.take(manifest, StagingBuffer(), SHORT_S))
    end(sender, [group])


def test_host_transport_can_be_asked_for_between_gpus() -> None:
    sender = WeightSender(torch.float32, deadline_s=DEADLINE_S, transport="gloo", share_memory=False)
    groups = meet(sender, 1)
    assert groups[0].kind is Route.GLOO
    end(sender, groups)


async def test_engine_goes_through_vllms_four_phases_and_serves_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Init, start, update, finish in a real engine, bf16, loaded in the pause as on a GPU; the checkpoint holds a tied
    head once more, which is never sent."""
    for name, value in engine_environment(SETTINGS).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(receiving, "this_peer", gloo_for_nccl.pretends_a_gpu())
    arguments = engine_process.engine_arguments
    extension = {"worker_extension_cls": "tests.gloo_for_nccl_engine.Receiver"}
    monkeypatch.setattr(engine_process, "engine_arguments", lambda spec: arguments(spec) | extension)
    pair = Pair(build_tiny_model(tmp_path, redundant_head=True, dtype="bfloat16"), "bfloat16", share_memory=True)
    await pair.start()
    try:
        assert isinstance(next(iter(pair.sender._opened._copied)), sending_links.NcclSender)
        for share in (1.0, 1.0, 0.05):
            pair.perturb(share)
            assert await pair.differs_by() > 2 * pair.tolerance
            num_bytes = await pair.sync()
            assert (num_bytes < pair.sender._buffer.memory.numel()) == (share < 1), "what is new alone"
            assert await pair.differs_by() <= pair.tolerance
        await serves_adapters(pair)
        rendezvous = pair.sender.open(2)  # the second never comes: named, and the group is built anew
        pair.sender._opened._deadline_s = SHORT_S
        joining = asyncio.create_task(pair.engine.join_transfer(rendezvous, 1))
        with pytest.raises(WeightSyncError, match="rank 2 did not join"):
            await asyncio.to_thread(pair.sender.accept)
        with pytest.raises(WeightSyncError, match=r"rank 1 \(host .*, GPU GPU-"):
            await joining
        await pair.meet()
        pair.perturb()
        await pair.sync()
        assert await pair.differs_by() <= pair.tolerance
    finally:
        await pair.end()


def hang_broadcast(link: sending_links.NcclSender, seconds: float = 0.3) -> None:
    """As NCCL does when a peer is gone: `synchronize` does not return."""
    assert link._slot._communicator is not None
    link._slot._communicator.broadcast = lambda *_: time.sleep(seconds)  # type: ignore[method-assign]


def end(sender: WeightSender, groups: list[ReceiverGroup]) -> None:
    sender.close()
    for group in groups:
        group.close()
