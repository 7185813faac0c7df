"""Groups that come in: as many as may, in waves where the run is synchronous; how each one's end is taken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from rayzero.services.loop.admission import AT_ONCE, Admission
from rayzero.services.loop.drops import Drops
from rayzero.services.loop.group_buffer import GroupBuffer, GroupState
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.errors import PromptRefused, WorkerError
from rayzero.services.schema.messages import Group
from tests.fakes import FakePrompts, make_group, make_recipe
from tests.unit.services.loop.kit import ScriptedRunner

NAN = float("nan")
BOTH = (0.0, 1.0)


class Entrance:
    """An admission at work on a buffer whose batches are not taken."""

    def __init__(self, *workers: str, **training: object) -> None:
        self.recipe = make_recipe(**training)
        settings = self.recipe.training
        self.ledger: list[tuple[str, int]] = []
        self.finished: dict[int, DropReason | None] = {}
        self.buffer = GroupBuffer(
            groups_per_update=settings.groups_per_update,
            max_staleness=settings.max_staleness,
            drop_stale=settings.on_stale == "drop",
            record=lambda event, group_id, **details: self.ledger.append((event, group_id)),
            clock=asyncio.get_running_loop().time,
        )
        self.runner = ScriptedRunner(*workers)
        drops = Drops(settings)
        self.admission = Admission(self.recipe, FakePrompts(), self.buffer, self.runner, self._finish, drops)
        self.admission.running.set()

    def _finish(self, group: Group, reason: DropReason | None) -> None:
        self.finished[group.group_id] = reason

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.admission.run())
        try:
            await self.settle()
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.admission.cancel()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    @property
    def begun(self) -> list[int]:
        return [number for number, _, _ in self.runner.asked]


async def test_it_admits_as_many_as_the_staleness_bound_has_room_for() -> None:
    entrance = Entrance(max_staleness=1)
    async with entrance.at_work():
        assert entrance.begun == [0, 1, 2, 3]
        assert entrance.buffer.num_free == 0


async def test_a_large_batch_comes_in_by_slices_between_which_the_loop_goes_on() -> None:
    entrance = Entrance(max_staleness=1, groups_per_update=100)
    task = asyncio.create_task(entrance.admission.run())
    await asyncio.sleep(0)
    assert entrance.buffer.next_group_id == AT_ONCE
    await entrance.settle()
    assert entrance.begun == list(range(200)) and entrance.buffer.num_free == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await entrance.admission.cancel()


async def test_no_more_are_admitted_than_the_run_still_needs() -> None:
    entrance = Entrance(max_staleness=5, num_updates=2)
    async with entrance.at_work():
        assert entrance.begun == [0, 1, 2, 3]


async def test_a_synchronous_run_deals_a_wave_out_to_its_workers() -> None:
    entrance = Entrance("a", "b", groups_per_update=3)
    entrance.runner.ends = {0: BOTH, 1: BOTH, 2: (1.0, 1.0)}
    async with entrance.at_work():
        assert entrance.runner.asked == [(0, "a", False), (1, "b", False), (2, "a", False)]


async def test_a_synchronous_run_begins_no_group_while_another_is_on_its_way() -> None:
    entrance = Entrance()
    entrance.runner.ends = {0: (NAN, NAN)}  # dropped, while group 1 hangs
    async with entrance.at_work():
        assert entrance.begun == [0, 1] and entrance.buffer.num_free == 1
        assert entrance.admission.is_busy()
        entrance.runner.hangs[1].set()
        entrance.buffer.drop(entrance.buffer.entries[1], DropReason.FAILED)
        await entrance.settle()
        assert entrance.begun == [0, 1, 2, 3]


async def test_a_pause_keeps_everything_out() -> None:
    entrance = Entrance()
    entrance.admission.running.clear()
    async with entrance.at_work():
        assert not entrance.begun and not entrance.ledger
        entrance.admission.running.set()
        await entrance.settle()
        assert entrance.begun == [0, 1]


async def test_closed_it_admits_none_and_those_on_their_way_go_on() -> None:
    entrance = Entrance(max_staleness=1)
    entrance.admission.is_open = False
    async with entrance.at_work():
        assert not entrance.begun


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (BOTH, None),
        ((1.0, 1.0), None),
        ((1.0, NAN), DropReason.VERDICT_ERRORS),
    ],
)
async def test_what_becomes_of_a_scored_group(end: tuple[float, ...], reason: DropReason | None) -> None:
    entrance = Entrance(max_staleness=1)
    entrance.runner.ends = {0: end}
    async with entrance.at_work():
        assert entrance.finished == {0: reason}
        ready = [entry.group_id for entry in entrance.buffer.entries.values() if entry.state is GroupState.READY]
        assert ready == ([0] if reason is None else [])


async def test_a_uniform_group_is_replaced_where_the_recipe_asks_for_it() -> None:
    entrance = Entrance(max_staleness=1, skip_uniform_groups=True)
    entrance.runner.ends = {0: (1.0, 1.0)}
    async with entrance.at_work():
        assert entrance.finished == {0: DropReason.UNIFORM_REWARDS}
        assert entrance.begun == [0, 1, 2, 3, 4]


async def test_equal_sums_of_unequal_parts_teach_where_every_part_is_normalised() -> None:
    """GDPO has an advantage for them: dropped, they would be missing from what it is for."""
    parts = [{"a": (1.0, 1.0), "f": (1.0, 0.0)}, {"a": (1.0, 0.0), "f": (1.0, 1.0)}]
    cases: list[tuple[str, list[dict[str, tuple[float, float]] | None], DropReason | None]] = [
        ("std_normalised", [*parts], DropReason.UNIFORM_REWARDS),
        ("component_normalised", [*parts], None),
        ("component_normalised", [parts[0], parts[0]], DropReason.UNIFORM_REWARDS),
        ("component_normalised", [None, None], DropReason.UNIFORM_REWARDS),
    ]
    for advantage, judged, reason in cases:
        entrance = Entrance(max_staleness=1, skip_uniform_groups=True)
        learner = entrance.recipe.learner.model_copy(update={"advantage": advantage})
        entrance.admission.recipe = entrance.recipe.model_copy(update={"learner": learner})
        group = make_group(0, rewards=(1.0, 1.0))
        rollouts = tuple(
            replace(rollout, verdict=replace(rollout.verdict, parts=each))
            for rollout, each in zip(group.rollouts, judged, strict=True)
        )
        assert entrance.admission._reason_to_drop(replace(group, rollouts=rollouts)) is reason


async def test_a_refused_prompt_costs_itself_and_a_failed_group_its_place() -> None:
    entrance = Entrance(max_staleness=1)
    entrance.runner.ends = {0: PromptRefused("no user turn"), 1: WorkerError("generation failed 1 times")}
    async with entrance.at_work():
        assert dict(entrance.buffer.dropped) == {DropReason.REFUSED: 1, DropReason.FAILED: 1}
        assert not entrance.finished, "there is no group to record"
        assert not entrance.admission.failed.done()


async def test_when_the_fleet_has_given_up_the_run_hears_of_it_at_once() -> None:
    entrance = Entrance(max_staleness=1)
    gone = WorkerError("rollout workers failed 21 times in a row")
    entrance.runner.rollouts._leases.failure = gone
    entrance.runner.ends = {0: WorkerError("no worker")}
    async with entrance.at_work():
        with pytest.raises(WorkerError, match="no worker"):
            await entrance.admission.failed
        assert not entrance.buffer.dropped


async def test_a_group_that_the_buffer_gives_up_is_aborted_at_its_engine() -> None:
    entrance = Entrance(max_staleness=1)
    async with entrance.at_work():
        entry = entrance.buffer.entries[2]
        entrance.buffer._drop_early(entry, DropReason.OVER_PROVISIONED)
        await entrance.settle()
        assert entrance.runner.hangs[2].is_set()
        assert ("dropped", 2) in entrance.ledger
