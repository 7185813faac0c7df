"""Both halves of a streamed broadcast, over shared memory and gloo: two buckets at a time, and every fault named."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from rayzero.learner.broadcast.sender import WeightSender
from rayzero.learner.broadcast.stream import BucketStream
from rayzero.rollout_workers.broadcast.buffer import StagingBuffer
from rayzero.rollout_workers.broadcast.group import ReceiverGroup
from rayzero.rollout_workers.broadcast.intake import BucketIntake
from rayzero.services.schema.broadcast.wire import NUM_ROOMS, bucket_key
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.weights import WeightManifest
from tests.unit.rollout_workers.broadcast.test_group import DEADLINE_S, SHORT_S, begin, meet

CPU = torch.device("cpu")
BUCKET_BYTES, NUM_BUCKETS = 4000, 5
WAYS = pytest.mark.parametrize("share_memory", [True, False], ids=["shared memory", "gloo"])


def weights(seed: int = 0) -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(50, 30), (3,), (50, 30), (90, 30), (1,), (50, 30), (50, 30), (10, 2)]
    return [(f"layer.{index}", torch.randn(shape, generator=generator)) for index, shape in enumerate(shapes)]


def make_sender(*, share_memory: bool, deadline_s: float = DEADLINE_S) -> WeightSender:
    return WeightSender(torch.bfloat16, deadline_s=deadline_s, bucket_bytes=BUCKET_BYTES, share_memory=share_memory)


def announced(sender: WeightSender, version: int) -> WeightManifest:
    return sender.announce([(name, tensor.shape) for name, tensor in weights()], version)


class Receiver:
    """Takes a streamed broadcast as an engine does, and keeps copies."""

    def __init__(self, group: ReceiverGroup) -> None:
        self.group, self.intake, self.staging = group, BucketIntake(CPU), StagingBuffer()
        self.tensors: dict[str, torch.Tensor] = {}
        self.consumed: list[int] = []
        self.delay_s = 0.0

    def take(self, manifest: WeightManifest) -> None:
        self.staging.expect(manifest)
        self.intake.reserve(self.group, manifest)
        self.group.announce(manifest.policy_version)
        self.intake.take(self.group, manifest, time.monotonic() + DEADLINE_S, self.consume)

    def consume(self, index: int, bucket: torch.Tensor, digests: Sequence[str]) -> None:
        self.staging.place(index, bucket)
        self.staging.verify_bucket(index, digests)
        time.sleep(self.delay_s)
        self.tensors |= {name: tensor.clone() for name, tensor in self.staging.tensors(index)}
        self.consumed.append(index)


@WAYS
def test_a_version_that_is_sent_again_is_not_taken_for_the_one_before(share_memory: bool) -> None:
    """A receiver that is ready before the sender looks for it must find no digests of the first time."""
    sender = make_sender(share_memory=share_memory)
    (group,) = meet(sender, 1)
    for seed in (1, 2):
        manifest = announced(sender, 1)
        assert not any(group._store.check([bucket_key(1, index)]) for index in range(NUM_BUCKETS))
        taking = begin(Receiver(group).take, manifest)
        time.sleep(0.1)
        sender.stream(weights(seed))
        taking.result(timeout=DEADLINE_S)
    group.close()
    sender.close()


def test_a_receiver_that_stops_taking_costs_no_more_than_one_deadline() -> None:
    """However far the broadcast has come by then: the learner must give up before the driver takes it for dead."""
    deadline_s = 4.0
    sender = make_sender(share_memory=False, deadline_s=deadline_s)
    groups = meet(sender, 2)
    large = [(f"layer.{index}", torch.zeros(2**24)) for index in range(3)]
    manifest = sender.announce([(name, tensor.shape) for name, tensor in large], 1)

    def late() -> Iterator[tuple[str, torch.Tensor]]:
        time.sleep(3.5)
        yield from large

    groups[1].announce(1)
    taking = begin(Receiver(groups[0]).take, manifest)
    begun = time.monotonic()
    with pytest.raises(WeightSyncError, match="broke off"):
        sender.stream(late())
    assert time.monotonic() - begun < deadline_s + 3.0, "a deadline of its own for every bucket takes 7.5 s"
    with pytest.raises(WeightSyncError):
        taking.result(timeout=DEADLINE_S)
    for group in groups:
        group.close()


Fault = Callable[[BucketStream, int], None]


@pytest.fixture
def tear(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fault], None]:
    """Do something to every bucket after it was digested and before it goes out."""
    fill = BucketStream.fill

    def install(fault: Fault) -> None:
        def torn(stream: BucketStream, index: int, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
            fill(stream, index, tensors)
            fault(stream, index)

        monkeypatch.setattr(BucketStream, "fill", torn)

    return install


def flip(stream: BucketStream, index: int) -> None:
    if index == 1:
        stream.bucket(index)[8] ^= 1


def tear_off(stream: BucketStream, index: int) -> None:
    if index == 1:
        stream.bucket(index)[stream.bucket(index).numel() // 2 :] = 0


def exchange(stream: BucketStream, index: int) -> None:
    """The bucket is what lay in the other room: the one before it."""
    if index == 1:
        before = stream.bucket(0)
        stream.bucket(1)[: before.numel()] = before[: stream.bucket(1).numel()]


def end(sender: WeightSender, receivers: Sequence[Receiver]) -> None:
    sender.close()
    for receiver in receivers:
        receiver.group.close()


@WAYS
def test_all_hold_what_was_sent_version_after_version_and_memory_is_two_buckets(share_memory: bool) -> None:
    sender = make_sender(share_memory=share_memory)
    receivers = [Receiver(group) for group in meet(sender, 2)]
    receivers[1].delay_s = 0.01
    for version in (1, 2, 3):
        manifest = announced(sender, version)
        assert manifest.streamed and len(manifest.bucket_bytes) == NUM_BUCKETS
        taken = [begin(receiver.take, manifest) for receiver in receivers]
        sender.stream(weights(version))
        for receiver, future in zip(receivers, taken, strict=True):
            future.result(DEADLINE_S)
            assert list(receiver.tensors) == [name for name, _ in weights()]
            for name, sent in weights(version):
                assert torch.equal(receiver.tensors[name], sent.bfloat16())
    rooms = NUM_ROOMS * manifest.largest_bucket_bytes
    assert sender._stream.memory.numel() == rooms < manifest.num_bytes
    assert [receiver.intake.num_bytes for receiver in receivers] == [0 if share_memory else rooms] * 2
    left = [key for key in sender._opened._store._values if key.startswith(("taken/", "bucket/1", "bucket/2"))]
    assert not left, "what no rank asks for any more is forgotten"
    end(sender, receivers)


@WAYS
@pytest.mark.parametrize("fault", [flip, tear_off, exchange])
def test_a_bad_bucket_is_named_and_nothing_after_it_is_loaded_and_the_group_lives_on(
    share_memory: bool, fault: Fault, tear: Callable[[Fault], None]
) -> None:
    sender = make_sender(share_memory=share_memory)
    receivers = [Receiver(group) for group in meet(sender, 2)]
    manifest = announced(sender, 1)
    tear(fault)
    taken = [begin(receiver.take, manifest) for receiver in receivers]
    sender.stream(weights())
    victims = "|".join(spec.name for spec in manifest.tensors if spec.bucket == 1)
    for receiver, future in zip(receivers, taken, strict=True):
        with pytest.raises(WeightSyncError, match=f"bytes differ from what the learner announced: ({victims})"):
            future.result(DEADLINE_S)
        assert receiver.consumed == [0]
    tear(lambda stream, index: None)
    manifest = announced(sender, 2)
    taken = [begin(receiver.take, manifest) for receiver in receivers]
    sender.stream(weights(2))
    assert all(future.result(DEADLINE_S) is None for future in taken)
    end(sender, receivers)


@WAYS
def test_a_receiver_that_cannot_load_does_not_hang_the_others(share_memory: bool) -> None:
    sender = make_sender(share_memory=share_memory)
    broken, other = (Receiver(group) for group in meet(sender, 2))

    def fails(index: int, bucket: torch.Tensor, digests: Sequence[str]) -> None:
        raise ValueError("no such layer")

    broken.consume = fails  # type: ignore[method-assign]
    manifest = announced(sender, 1)
    taken = [begin(receiver.take, manifest) for receiver in (broken, other)]
    sender.stream(weights())
    with pytest.raises(ValueError, match="no such layer"):
        taken[0].result(DEADLINE_S)
    assert taken[1].result(DEADLINE_S) is None
    end(sender, [broken, other])


@WAYS
def test_a_receiver_that_dies_in_the_middle_ends_it_for_all_and_the_rest_take_the_same_version_anew(
    share_memory: bool,
) -> None:
    sender = make_sender(share_memory=share_memory, deadline_s=DEADLINE_S / 5)
    doomed, survivor = (Receiver(group) for group in meet(sender, 2))
    takes = doomed.consume

    def dies(index: int, bucket: torch.Tensor, digests: Sequence[str]) -> None:
        takes(index, bucket, digests)
        if index == 1:
            doomed.group.close()

    doomed.consume = dies  # type: ignore[method-assign]
    manifest = announced(sender, 1)
    taken = [begin(receiver.take, manifest) for receiver in (doomed, survivor)]
    gone_through: list[str] = []

    def counted() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in weights():
            gone_through.append(name)
            yield name, tensor

    begun = time.monotonic()
    with pytest.raises(WeightSyncError, match=r"broke off|rank 1 .* did not take bucket"):
        sender.stream(counted())
    assert time.monotonic() - begun < DEADLINE_S / 2
    assert gone_through == [name for name, _ in weights()], "the other ranks put all of them together"
    for future in taken:
        with pytest.raises(WeightSyncError):
            future.result(DEADLINE_S)
    survivor.group.close()
    (survivor.group,) = meet(sender, 1)
    manifest = announced(sender, 1)
    again = begin(survivor.take, manifest)
    sender.stream(weights())
    assert again.result(DEADLINE_S) is None
    assert all(torch.equal(survivor.tensors[name], sent.bfloat16()) for name, sent in weights())
    end(sender, [survivor])


@WAYS
def test_a_bucket_that_never_comes_ends_at_the_deadline(share_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sender = make_sender(share_memory=share_memory)
    receivers = [Receiver(group) for group in meet(sender, 1)]
    group = sender._opened
    send = group.send_bucket
    monkeypatch.setattr(group, "send_bucket", lambda stream, index: index != 2 and send(stream, index))
    manifest = announced(sender, 1)
    receivers[0].intake.reserve(receivers[0].group, manifest)
    receivers[0].group.announce(1)
    receivers[0].staging.expect(manifest)
    give_up = time.monotonic() + 2 * SHORT_S
    taken = begin(receivers[0].intake.take, receivers[0].group, manifest, give_up, receivers[0].consume)
    sending = begin(sender.stream, weights())
    with pytest.raises(WeightSyncError, match=f"did not get bucket 2 of {NUM_BUCKETS} in time"):
        taken.result(DEADLINE_S)
    end(sender, receivers)
    sending.exception(DEADLINE_S)


def test_what_was_not_announced_is_not_sent_as_something_else() -> None:
    sender = make_sender(share_memory=True)
    receivers = [Receiver(group) for group in meet(sender, 1)]
    manifest = announced(sender, 1)
    taken = begin(receivers[0].take, manifest)
    first, second, *rest = weights()
    with pytest.raises(WeightSyncError, match=r"layer\.0 was announced to be sent next, and layer\.1 came"):
        sender.stream([second, first, *rest])
    with pytest.raises(WeightSyncError):
        taken.result(DEADLINE_S)
    with pytest.raises(WeightSyncError, match="announce weights first"):
        sender = make_sender(share_memory=True)
        meet(sender, 1)
        sender.stream(weights())
