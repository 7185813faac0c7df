"""The buffer: staleness by construction, batches, retirement, resume."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayzero.services.loop.group_buffer import Entry, GroupBuffer, GroupState
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.errors import DeadlineError
from rayzero.services.schema.messages import Group
from tests.fakes import make_group, make_prompt


async def take(buffer: GroupBuffer, deadline_s: float) -> list[Group] | None:
    await buffer.wait_for_batch(deadline_s)
    return buffer.take_now()


def make_buffer(**changes: Any) -> tuple[GroupBuffer, list[tuple[str, int, dict[str, Any]]]]:
    ledger: list[tuple[str, int, dict[str, Any]]] = []
    values: dict[str, Any] = {"groups_per_update": 2, "max_staleness": 0, "drop_stale": False, **changes}
    buffer = GroupBuffer(
        record=lambda event, group_id, **details: ledger.append((event, group_id, details)), clock=lambda: 0.0, **values
    )
    return buffer, ledger


def finish(buffer: GroupBuffer, entry: Entry, version: int | None = None) -> None:
    buffer.commit(entry, make_group(entry.group_id, buffer.version if version is None else version))


async def test_room_is_one_batch_per_version_of_staleness() -> None:
    buffer, _ = make_buffer(max_staleness=2)
    assert buffer.num_free == 6
    buffer.admit(make_prompt(0))
    assert buffer.num_free == 5


async def test_admitting_without_room_is_refused() -> None:
    buffer, _ = make_buffer()
    buffer.admit(make_prompt(0))
    buffer.admit(make_prompt(1))
    with pytest.raises(ValueError, match="no room"):
        buffer.admit(make_prompt(2))


async def test_a_batch_is_in_admission_order_however_groups_finish() -> None:
    buffer, _ = make_buffer(groups_per_update=3)
    entries = [buffer.admit(make_prompt(index)) for index in range(3)]
    for entry in reversed(entries):
        finish(buffer, entry)
    batch = await take(buffer, 1.0)
    assert batch is not None
    assert [group.group_id for group in batch] == [0, 1, 2]


async def test_every_group_ends_in_the_ledger_once() -> None:
    buffer, ledger = make_buffer()
    first, second = buffer.admit(make_prompt(0)), buffer.admit(make_prompt(1))
    buffer.drop(first, DropReason.FAILED, "no worker")
    buffer.drop(first, DropReason.FAILED, "again")
    finish(buffer, second)
    finish(buffer, buffer.admit(make_prompt(2)))
    batch = await take(buffer, 1.0)
    assert batch is not None
    buffer.retire(batch, 1)
    assert [(event, group_id) for event, group_id, _ in ledger] == [
        ("admitted", 0),
        ("admitted", 1),
        ("dropped", 0),
        ("admitted", 2),
        ("trained", 1),
        ("trained", 2),
    ]
    assert ("dropped", 0, {"version": 0, "reason": "failed", "detail": "no worker"}) in ledger
    assert buffer.dropped == {DropReason.FAILED: 1}


async def test_drops_are_counted_by_reason_however_many_details_there_are() -> None:
    buffer, _ = make_buffer(max_staleness=3)
    for index in range(5):
        buffer.drop(buffer.admit(make_prompt(index)), DropReason.FAILED, f"worker {index} died")
    assert buffer.dropped_counts() == {"failed": 5}
    other, _ = make_buffer()
    other.load_state_dict({**buffer.state_dict(), "dropped": {"failed: a: b": 2, "failed: c": 1, "stale": 1}})
    assert other.dropped == {DropReason.FAILED: 3, DropReason.STALE: 1}


async def test_a_straggler_holds_back_the_batch_that_would_strand_it() -> None:
    """Staleness 1, two groups an update: groups 0 and 1 are slow; the second update must wait for both."""
    buffer, _ = make_buffer(max_staleness=1)
    entries = [buffer.admit(make_prompt(index)) for index in range(4)]
    for entry in entries[2:]:
        finish(buffer, entry)
    batch = await take(buffer, 1.0)
    assert batch is not None and [group.group_id for group in batch] == [2, 3]
    buffer.retire(batch, 1)
    for index in (4, 5):
        finish(buffer, buffer.admit(make_prompt(index)))
    with pytest.raises(DeadlineError, match="group 0"):
        await take(buffer, 0.01)
    finish(buffer, entries[0], version=0)
    finish(buffer, entries[1], version=0)
    batch = await take(buffer, 1.0)
    assert batch is not None and [group.group_id for group in batch] == [0, 1]


async def test_overtaking_never_makes_more_urgent_groups_than_a_batch_holds() -> None:
    """Staleness 2: after two overtaking batches, eight version-0 groups would need one batch of four. It must wait."""
    buffer, _ = make_buffer(max_staleness=2, groups_per_update=4)
    entries = [buffer.admit(make_prompt(index)) for index in range(12)]
    for entry in entries[8:]:
        finish(buffer, entry)
    batch = await take(buffer, 1.0)
    assert batch is not None
    buffer.retire(batch, 1)
    for index in range(12, 16):
        finish(buffer, buffer.admit(make_prompt(index)))
    with pytest.raises(DeadlineError):
        await take(buffer, 0.01)


async def test_dropping_frees_room_instead_of_waiting() -> None:
    buffer, ledger = make_buffer(max_staleness=0, drop_stale=True, groups_per_update=1)
    entry = buffer.admit(make_prompt(0))
    finish(buffer, entry)
    batch = await take(buffer, 1.0)
    assert batch is not None
    late = Entry(7, make_prompt(7), 0)
    buffer.entries[7] = late
    buffer.retire(batch, 1)
    assert ("dropped", 7, {"version": 1, "reason": "stale"}) in ledger
    finish(buffer, late)
    assert 7 not in buffer.entries


async def test_a_group_staler_than_its_admission_is_caught_at_use() -> None:
    buffer, _ = make_buffer(groups_per_update=1)
    buffer.version = 3
    finish(buffer, buffer.admit(make_prompt(0)), version=1)
    with pytest.raises(DeadlineError):
        await take(buffer, 0.01)
    assert buffer.dropped == {"stale": 1}


async def test_deadline_says_who_holds_what() -> None:
    buffer, _ = make_buffer()
    entry = buffer.admit(make_prompt(0))
    buffer.move(entry, GroupState.GENERATING, "rollout-3")
    with pytest.raises(DeadlineError, match=r"group 0 \(train/0\): generating at rollout-3"):
        await take(buffer, 0.01)


async def test_interrupt_ends_the_wait() -> None:
    buffer, _ = make_buffer()
    waiting = asyncio.create_task(take(buffer, 10.0))
    await asyncio.sleep(0)
    buffer.interrupt()
    assert await waiting is None


async def test_state_keeps_finished_groups_and_the_prompts_of_others() -> None:
    buffer, _ = make_buffer(max_staleness=1)
    finished, waiting = buffer.admit(make_prompt(0)), buffer.admit(make_prompt(1))
    finish(buffer, finished)
    buffer.move(waiting, GroupState.GENERATING, "rollout-0")
    other, _ = make_buffer(max_staleness=1)
    other.load_state_dict(buffer.state_dict())
    assert {key: entry.state for key, entry in other.entries.items()} == {0: GroupState.READY, 1: GroupState.WAITING}
    assert other.next_group_id == 2


async def test_a_batch_does_not_wait_for_as_many_stragglers_as_were_begun_to_spare() -> None:
    dropped: list[int] = []
    buffer, ledger = make_buffer(max_staleness=1, num_spare=1)
    buffer.on_early_drop = lambda entry: dropped.append(entry.group_id)
    entries = [buffer.admit(make_prompt(index)) for index in range(5)]
    assert buffer.num_free == 0
    for entry in entries[2:4]:
        finish(buffer, entry)
    batch = buffer.take_now()
    assert batch is not None and not dropped, "the late ones may still be used by the next batch"
    buffer.retire(batch, 1)
    for index in (5, 6):
        finish(buffer, buffer.admit(make_prompt(index)))
    assert buffer.take_now() is None and buffer.num_held == 1, "three are late, one was to spare"
    finish(buffer, entries[0], version=0)
    assert buffer.take_now() is None and buffer.num_held == 1
    finish(buffer, entries[4], version=0)
    batch = buffer.take_now()
    assert batch is not None and [group.group_id for group in batch] == [0, 4]
    assert dropped == [1] and ("dropped", 1, {"version": 1, "reason": "over-provisioned"}) in ledger


@given(
    staleness=st.integers(0, 4),
    spare=st.integers(0, 3),
    size=st.integers(1, 4),
    speeds=st.lists(st.integers(0, 12), min_size=200, max_size=200),
)
@settings(max_examples=60, deadline=None)
def test_no_schedule_ever_trains_on_a_stale_group_or_stalls(
    staleness: int, spare: int, size: int, speeds: list[int]
) -> None:
    """Promise 1, for any order in which groups finish: bounded, only spare ones dropped, progress in the end."""
    num_spare = min(spare, size) if staleness else 0
    buffer, ledger = make_buffer(max_staleness=staleness, groups_per_update=size, num_spare=num_spare)
    finishing: list[tuple[int, Entry, int]] = []
    for now in range(400):
        while buffer.num_free > 0:
            entry = buffer.admit(make_prompt(0))
            finishing.append((now + speeds[entry.group_id % len(speeds)], entry, buffer.version))
        for item in [item for item in finishing if item[0] <= now]:
            finishing.remove(item)
            finish(buffer, item[1], version=item[2])
        batch = buffer.take_now()
        if batch is not None:
            assert all(buffer.version - group.oldest_version <= staleness for group in batch)
            buffer.retire(batch, buffer.version + 1)
    assert buffer.version >= 400 // 14
    assert set(buffer.dropped) <= {DropReason.OVER_PROVISIONED}
    assert buffer.dropped[DropReason.OVER_PROVISIONED] <= num_spare * buffer.version
    assert sum(event == "trained" for event, _, _ in ledger) == buffer.version * size
