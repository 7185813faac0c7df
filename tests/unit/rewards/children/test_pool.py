"""The child pool: deadlines that hold, children that are replaced, neighbours that are left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rayzero.rewards.children.child import Child, ChildFailure
from rayzero.rewards.children.pool import ChildPool
from tests.process_life import lives

MODULE = "tests.unit.rewards.child_functions"


@asynccontextmanager
async def pool_of(num_children: int = 2, deadline_s: float = 5.0, **options: Any) -> AsyncIterator[ChildPool]:
    options = {"memory_bytes": 256 * 2**20, "preload": (MODULE,), **options}
    pool = ChildPool(f"{MODULE}:worker", None, num_children=num_children, deadline_s=deadline_s, **options)
    try:
        yield pool
    finally:
        await pool.close()


async def result_of(pool: ChildPool, action: str, value: Any) -> Any:
    return (await pool.run((action, value))).result


async def failure_of(pool: ChildPool, action: str, value: Any) -> ChildFailure:
    with pytest.raises(ChildFailure) as caught:
        await pool.run((action, value))
    return caught.value


async def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_results_come_back_in_the_order_of_the_calls_and_children_are_kept() -> None:
    async with pool_of() as pool:
        results = await asyncio.gather(*(result_of(pool, "echo", [index, "文\ud800\0"]) for index in range(50)))
        assert results == [[index, "文\ud800\0"] for index in range(50)]
        assert await result_of(pool, "length", "x" * 3_000_000) == 3_000_000
        # Children are kept. On a busy machine one that waits for a core looks asleep, and another takes its place.
        assert pool.counts["forked"] <= 6


async def test_a_single_item_starts_a_single_child() -> None:
    async with pool_of(num_children=8) as pool:
        await result_of(pool, "echo", 1)
        assert pool.counts["forked"] == 1


async def test_the_deadline_holds_whatever_the_child_does() -> None:
    async def held(action: str, value: Any) -> None:
        started = time.perf_counter()
        failure = await failure_of(pool, action, value)
        assert failure.cause == "deadline", action
        assert 0.9 <= time.perf_counter() - started <= 1.1, action

    async with pool_of(num_children=3, deadline_s=1.0) as pool:
        pids = set(await asyncio.gather(*(result_of(pool, "pid", index) for index in range(3))))
        await asyncio.gather(held("sleep", 60), held("spin", 60), held("spin_in_c", 40_000_000))
        await eventually(lambda: not any(map(lives, pids)))
        assert await result_of(pool, "echo", "next") == "next"


@pytest.mark.parametrize(("action", "value"), [("spin", 60), ("spin_in_c", 40_000_000)])
async def test_cpu_time_is_bounded_whatever_the_deadline(action: str, value: Any) -> None:
    async with pool_of(deadline_s=60, cpu_s=0.3) as pool:
        await result_of(pool, "echo", 0)
        before = time.process_time()
        failure = await failure_of(pool, action, value)
        assert failure.cause == "cpu"
        assert time.process_time() - before < 0.3, "watching costs more than the work"
        assert pool.counts["forked"] == 1
        assert await result_of(pool, "echo", 1) == 1


async def test_sleeping_uses_no_cpu_time() -> None:
    async with pool_of(deadline_s=60, cpu_s=0.2) as pool:
        assert await result_of(pool, "sleep", 0.5) is None


async def test_the_deadline_counts_from_the_start_of_the_work_not_of_the_wait() -> None:
    async with pool_of(num_children=1, deadline_s=0.5) as pool:
        await result_of(pool, "echo", 0)
        started = time.perf_counter()
        assert await asyncio.gather(*(result_of(pool, "spin", 0.2) for _ in range(5))) == ["spun"] * 5
        assert time.perf_counter() - started >= 1.0


async def test_stuck_items_do_not_take_a_healthy_neighbour_with_them() -> None:
    """Four stuck jobs in a shared pool once made three healthy 10 ms jobs time out and score 0."""
    async with pool_of(num_children=2, deadline_s=60) as pool:
        stuck = [asyncio.create_task(pool.run(("sleep", 600))) for _ in range(4)]
        await eventually(lambda: sum(child.asleep for child in pool._busy) >= 2, within_s=30)
        async with asyncio.timeout(30):
            healthy = await asyncio.gather(*(result_of(pool, "spin", 0.01) for _ in range(20)))
        assert healthy == ["spun"] * 20
        assert not any(task.done() for task in stuck)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def test_spinning_items_cost_their_cpu_share_but_change_no_verdict() -> None:
    async with pool_of(num_children=2, deadline_s=0.4) as pool:
        stuck = [asyncio.create_task(failure_of(pool, "spin_in_c", 40_000_000)) for _ in range(4)]
        await asyncio.sleep(0)
        assert await asyncio.gather(*(result_of(pool, "spin", 0.01) for _ in range(10))) == ["spun"] * 10
        assert {failure.cause for failure in await asyncio.gather(*stuck)} == {"deadline"}


async def test_no_more_children_sleep_than_allowed() -> None:
    async with pool_of(num_children=1, deadline_s=0.3, max_asleep=2) as pool:
        stuck = [asyncio.create_task(failure_of(pool, "sleep", 60)) for _ in range(9)]
        await asyncio.gather(*stuck)
        assert pool.counts["forked"] == 9
        assert pool._taken == pool._running == 0


async def test_memory_is_bounded_and_the_greedy_child_replaced() -> None:
    async with pool_of(memory_bytes=64 * 2**20) as pool:
        pid = await result_of(pool, "pid", 0)
        failure = await failure_of(pool, "allocate", 2**30)
        assert failure.cause == "memory"
        assert await result_of(pool, "pid", 0) != pid


@pytest.mark.parametrize(
    ("action", "value", "text"), [("exit", 3, "ended itself with status 3"), ("signal", 11, "killed by SIGSEGV")]
)
async def test_a_child_that_dies_is_named_with_its_cause(action: str, value: int, text: str) -> None:
    async with pool_of() as pool:
        failure = await failure_of(pool, action, value)
        assert failure.cause == "died"
        assert text in failure.text
        assert pool.counts["retried"] == 1
        assert await result_of(pool, "echo", 1) == 1


async def test_an_item_whose_child_died_is_tried_again_in_another(tmp_path: Path) -> None:
    async with pool_of() as pool:
        assert await result_of(pool, "once", str(tmp_path / "seen")) == "second try"
        assert pool.counts["died"] == 1


@pytest.mark.parametrize(
    ("action", "text"), [("raise", "ValueError: bad luck"), ("leave", "SystemExit: 3"), ("object", "TypeError")]
)
async def test_what_the_work_raises_comes_back_as_text(action: str, text: str) -> None:
    async with pool_of() as pool:
        failure = await failure_of(pool, action, "bad luck")
        assert failure.cause == "exception"
        assert text in failure.text


async def test_what_a_killed_child_started_is_killed_with_it(tmp_path: Path) -> None:
    async with pool_of(deadline_s=0.5) as pool:
        await failure_of(pool, "grandchild", str(tmp_path / "pid"))
        pid = int((tmp_path / "pid").read_text())
        await eventually(lambda: not lives(pid))


async def test_closing_ends_every_child_at_once() -> None:
    async with pool_of(deadline_s=60) as pool:
        pid = await result_of(pool, "pid", 0)
        stuck = asyncio.create_task(failure_of(pool, "sleep", 60))
        await asyncio.sleep(0.1)
        started = time.perf_counter()
    assert time.perf_counter() - started < 2
    assert (await stuck).cause == "died"
    assert not lives(pid)


async def test_cancelling_an_item_kills_its_child_and_frees_its_slot() -> None:
    async with pool_of(num_children=1, deadline_s=60) as pool:
        pid = await result_of(pool, "pid", 0)
        stuck = asyncio.create_task(result_of(pool, "spin", 60))
        waiting = asyncio.create_task(result_of(pool, "echo", 0))
        await asyncio.sleep(0.05)
        stuck.cancel()
        assert await waiting == 0
        await eventually(lambda: not lives(pid))
        assert pool._taken == pool._running == 0


async def test_a_dead_fork_server_is_replaced() -> None:
    async with pool_of() as pool:
        await result_of(pool, "echo", 0)
        assert pool._fork_server is not None
        pool._fork_server._process.kill()
        pool._fork_server._process.wait()
        assert await result_of(pool, "echo", 1) == 1


async def test_work_that_cannot_start_says_why() -> None:
    pool = ChildPool(f"{MODULE}:cannot_start", None, num_children=1, deadline_s=1.0, memory_bytes=2**28)
    failure = await failure_of(pool, "echo", 1)
    assert failure.cause == "start"
    assert "no model here" in failure.text
    await pool.close()


async def test_a_child_is_renewed_after_its_items() -> None:
    async with pool_of(num_children=1, items_per_child=3) as pool:
        pids = [await result_of(pool, "pid", 0) for _ in range(7)]
        assert len(set(pids)) == 3


async def test_the_fork_server_warms_up_once_children_are_replaced() -> None:
    async with pool_of(num_children=1, warm_up=f"{MODULE}:warm_up_steps") as pool:
        assert await result_of(pool, "warmth", 0) == 0
        await failure_of(pool, "exit", 1)
        await asyncio.sleep(0.2)
        await failure_of(pool, "exit", 1)
        assert await result_of(pool, "warmth", 0) == 3


def test_who_sleeps_is_known_at_the_first_look_and_who_computes_is_not_taken_for_asleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = iter([("R", 0.01), ("S", 0.02), ("S", 0.02), ("S", 0.05), ("S", 0.05)])
    monkeypatch.setattr("rayzero.rewards.children.child.usage_of", lambda pid: next(seen))
    child = Child(reader=None, writer=None)  # type: ignore[arg-type]
    child.begin(0.0)
    assert [child.looks_asleep(now) for now in (0.004, 0.008, 0.012)] == [False, False, True]
    child.begin(1.0)
    assert [child.looks_asleep(now) for now in (1.004, 1.008)] == [True, True]
