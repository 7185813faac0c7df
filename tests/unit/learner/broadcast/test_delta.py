"""Deltas: every version is rebuilt to the bit by those that hold the one before, and sent whole to all others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
import torch

from rayzero.learner.broadcast.delta import Delta, words_of
from rayzero.learner.broadcast.sender import WeightSender
from rayzero.rollout_workers.broadcast.buffer import StagingBuffer
from rayzero.rollout_workers.broadcast.delta import PART_BIT_BYTES, apply_delta
from rayzero.rollout_workers.broadcast.group import ReceiverGroup
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.weights import WeightManifest
from tests.unit.rollout_workers.broadcast.test_group import DEADLINE_S, begin, meet

Weights = list[tuple[str, torch.Tensor]]
CPU = torch.device("cpu")


class Receiver:
    """Takes what is sent as an engine does: proves it, and remembers what it has."""

    def __init__(self, group: ReceiverGroup) -> None:
        self.group, self.staging = group, StagingBuffer()

    def take(self, manifest: WeightManifest) -> Weights:
        self.group.announce(manifest.policy_version, self.staging.content)
        for index in self.group.take(manifest, self.staging, DEADLINE_S):
            self.staging.verify_bucket(index)
        self.staging.prove()
        return list(self.staging.tensors())


def weights(dtype: torch.dtype = torch.float32) -> Weights:
    """Sizes that fill no row of 64 bytes, and no byte of eight bits."""
    generator = torch.Generator().manual_seed(0)
    return [(f"layer.{n}", torch.randn(n + 3, 13, generator=generator).to(dtype)) for n in range(40)]


def step(tensors: Weights, seed: int, share: float = 0.03) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _, tensor in tensors:
        changed = torch.rand(tensor.shape, generator=generator) < share
        tensor[changed] = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)[changed]


def deltas(dtype: torch.dtype = torch.bfloat16) -> WeightSender:
    return WeightSender(dtype, deadline_s=DEADLINE_S, bucket_bytes=7000, share_memory=False, makes_deltas=True)


def sync(sender: WeightSender, receivers: list[Receiver], sent: Weights, version: int) -> int:
    """Bytes that went to one receiver; each of them has what was sent afterwards."""
    manifest = sender.prepare(sent, version)
    taken: list[Future[Weights]] = [begin(receiver.take, manifest) for receiver in receivers]
    num_bytes = sender.broadcast()
    for future in taken:
        for (_, tensor), (_, wanted) in zip(future.result(DEADLINE_S), sent, strict=True):
            assert torch.equal(tensor, wanted.to(tensor.dtype))
    return num_bytes


def receivers_of(sender: WeightSender, count: int) -> list[Receiver]:
    return [Receiver(group) for group in meet(sender, count)]


def test_a_delta_is_the_bits_of_changed_words_and_the_words() -> None:
    old, new = torch.zeros(64, dtype=torch.int16), torch.zeros(64, dtype=torch.int16)
    new[0], new[9], new[63] = 5, -1, 258
    delta = Delta(128, CPU)
    delta.begin(since="3")
    delta.add(0, old[:32], new[:32])
    delta.add(64, old[32:], new[32:])
    assert delta.message.tolist() == [1, 2, 0, 0, 0, 0, 0, 128, 5, 0, 255, 255, 2, 1]
    apply_delta(old, delta.message)
    assert torch.equal(old, new)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.001, 0.05])
def test_many_parts_come_out_as_they_went_in(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    num_words = 3 * 8 * PART_BIT_BYTES + 32 * seed
    old = torch.randint(-(2**15), 2**15, (num_words,), dtype=torch.int16, generator=generator)
    new = old.clone()
    changed = torch.rand(num_words, generator=generator) < share
    new[changed] += 1
    delta = Delta(2 * num_words, CPU)
    delta.begin(since="0")
    delta.add(0, old, new)
    assert delta.message.numel() == num_words // 8 + 2 * int(changed.sum())
    apply_delta(old, delta.message)
    assert torch.equal(old, new)


@pytest.mark.parametrize("lost", [2, -2])
def test_a_delta_that_its_bits_contradict_is_refused(lost: int) -> None:
    new = torch.arange(320, dtype=torch.int16)
    delta = Delta(640, CPU)
    delta.begin(since="0")
    delta.add(0, torch.where(new < 300, new, new + 1), new)
    message = delta.message[:-2] if lost > 0 else torch.cat([delta.message, delta.message[-2:]])
    with pytest.raises(WeightSyncError, match="its own bits contradict"):
        apply_delta(torch.zeros(320, dtype=torch.int16), message)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_who_holds_the_version_before_gets_what_is_new(dtype: torch.dtype) -> None:
    sender = deltas(dtype)
    receivers = receivers_of(sender, 2)
    sent = weights(dtype)
    whole = sync(sender, receivers, sent, 1)
    assert whole == sender._buffer.memory.numel()
    for version in range(2, 6):
        step(sent, version)
        assert whole // 16 < sync(sender, receivers, sent, version) < whole // 4
    assert sync(sender, receivers, sent, 6) == whole // 16, "nothing has changed"


def test_values_that_differ_by_sign_or_by_what_is_no_number_are_told_apart() -> None:
    sender = deltas()
    receivers = receivers_of(sender, 1)
    sent = [("a", torch.zeros(640)), ("b", torch.full((640,), float("inf")))]
    sync(sender, receivers, sent, 1)
    sent[0][1][7], sent[1][1][9] = -0.0, -float("inf")
    num_bytes = sync(sender, receivers, sent, 2)
    assert num_bytes == sender._buffer.memory.numel() // 16 + 4
    assert receivers[0].staging.memory.view(torch.int16)[7] == -(2**15), "-0.0 has come"


def test_a_large_delta_is_not_sent_and_the_next_small_one_is() -> None:
    sender = deltas()
    receivers = receivers_of(sender, 2)
    sent = weights()
    whole = sync(sender, receivers, sent, 1)
    step(sent, 2, share=0.5)
    assert sync(sender, receivers, sent, 2) == whole
    step(sent, 3)
    assert sync(sender, receivers, sent, 3) < whole // 4


def test_who_comes_new_has_all_sent_whole_and_a_group_that_met_anew_goes_on() -> None:
    sender = deltas()
    (first,) = receivers_of(sender, 1)
    sent = weights()
    whole = sync(sender, [first], sent, 1)
    first.group, new = (receiver.group for receiver in receivers_of(sender, 2))
    step(sent, 2)
    assert sync(sender, [first, Receiver(new)], sent, 2) == whole
    first.group = meet(sender, 1)[0]
    step(sent, 3)
    assert sync(sender, [first], sent, 3) < whole // 4


def test_a_version_that_was_skipped_is_sent_whole() -> None:
    sender = deltas()
    receivers = receivers_of(sender, 1)
    sent = weights()
    whole = sync(sender, receivers, sent, 1)
    step(sent, 2)
    sender.prepare(sent, 2)
    step(sent, 3)
    assert sync(sender, receivers, sent, 3) == whole


def test_a_flipped_bit_of_a_delta_is_found_and_what_is_sent_next_is_whole() -> None:
    sender = deltas()
    (receiver,) = receivers_of(sender, 1)
    sent = weights()
    whole = sync(sender, [receiver], sent, 1)
    step(sent, 2)
    manifest = sender.prepare(sent, 2)
    assert manifest.since is not None and manifest.since.startswith("1-")
    delta = sender._buffer.delta
    assert delta is not None
    delta.message[-1] ^= 1
    taking = begin(receiver.take, manifest)
    assert sender.broadcast() < whole // 4
    with pytest.raises(WeightSyncError, match="bytes differ from what the learner announced"):
        taking.result(DEADLINE_S)
    assert receiver.staging.content is None
    assert sync(sender, [receiver], sent, 3) == whole


def test_a_version_that_broke_off_while_it_was_made_is_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the buffer holds it already."""
    sender = deltas()
    receivers = receivers_of(sender, 1)
    sent = weights()
    whole = sync(sender, receivers, sent, 1)
    step(sent, 2)
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Delta, "add", failing_after(Delta.add, 20))
        sender.prepare(sent, 2)
    assert sync(sender, receivers, sent, 3) == whole


def failing_after(add: Callable[..., None], count: int) -> Callable[..., None]:
    left = iter(range(count))

    def failing(*arguments: Any) -> None:
        if next(left, None) is None:
            raise MemoryError
        add(*arguments)

    return failing


def test_a_version_that_another_learner_made_is_no_start() -> None:
    """It has the same number, and other bits."""
    first, second = deltas(), deltas()
    (receiver,) = receivers_of(first, 1)
    sent = weights()
    whole = sync(first, [receiver], sent, 1)
    step(sent, 0)
    second.prepare(sent, 1)
    receiver.group = meet(second, 1)[0]
    step(sent, 2)
    assert sync(second, [receiver], sent, 2) == whole


def test_a_delta_from_another_version_is_refused() -> None:
    sender = deltas()
    sent = weights()
    manifest = sender.prepare(sent, 1)
    staging = StagingBuffer()
    staging.lay_out(manifest)
    with pytest.raises(WeightSyncError, match="a delta from version 7 came, and None is staged"):
        staging.change(replace(manifest, since="7"), torch.zeros(0, dtype=torch.uint8))


def test_without_being_asked_for_none_is_made() -> None:
    sender = WeightSender(torch.bfloat16, deadline_s=DEADLINE_S, bucket_bytes=7000, share_memory=False)
    receivers = receivers_of(sender, 1)
    sent = weights()
    whole = sync(sender, receivers, sent, 1)
    assert sync(sender, receivers, sent, 2) == whole


def test_words_are_of_16_bits() -> None:
    assert words_of(torch.ones(2, 3, dtype=torch.bfloat16)).shape == (6,)
    assert words_of(torch.ones(2, 3)).shape == (12,)
