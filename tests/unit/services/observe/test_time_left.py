"""The estimated end is right within a fifth after a tenth of a run, also where updates and evaluations are uneven."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from rayzero.services.observe.time_left import TimeLeft

Rows = list[dict[str, Any]]


def every(updates: int, number: int) -> Callable[[int], bool]:
    return lambda version: version == 0 or version >= number or (updates > 0 and version % updates == 0)


def timeline(
    number: int,
    seconds: Callable[[int], float],
    evaluation_s: float = 0.0,
    every_updates: int = 0,
    apart: bool = False,
    slowed: float = 1.0,
) -> tuple[Rows, Rows, float]:
    """Rows and evaluations of a run by its own clock, and when it ended. Beside training an evaluation slows it so that
    it costs `slowed` of its seconds."""
    now = 1000.0
    evaluations: Rows = []
    rows: Rows = []
    due = every(every_updates, number)
    if evaluation_s:
        now += evaluation_s
        evaluations.append({"update": 0, "evaluation_s": evaluation_s, "time_s": now})
    owed = 0.0
    for update in range(1, number + 1):
        own = seconds(update)
        late = min(owed, own)
        owed -= late
        now += own + late
        row = {"update": update, "wait_s": 0.3 * own + late, "update_s": 0.6 * own, "hold_s": 0.0, "sync_s": 0.1 * own}
        blocked = apart or update == number
        if evaluation_s and due(update):
            evaluations.append({"update": update, "evaluation_s": evaluation_s, "time_s": now + evaluation_s})
            now += evaluation_s if blocked else 0.0
            owed += 0.0 if blocked else slowed * evaluation_s
        rows.append(row | {"time_s": now})
    return rows, evaluations, now


def noisy(mean: float, spread: float, seed: int = 0) -> Callable[[int], float]:
    rng = random.Random(seed)
    return lambda _: mean * rng.lognormvariate(0.0, spread)


CASES: dict[str, tuple[int, Any]] = {
    "even": (100, {"seconds": lambda _: 4.0}),
    "the first update compiles for a minute": (60, {"seconds": lambda update: 60.0 if update == 1 else 3.0}),
    "noisy": (200, {"seconds": noisy(5.0, 0.3)}),
    "evaluations have the engines to themselves": (
        50, {"seconds": noisy(2.0, 0.1), "evaluation_s": 20.0, "every_updates": 10, "apart": True}
    ),
    "none of the evaluations but the first is seen yet": (
        45, {"seconds": noisy(2.0, 0.1), "evaluation_s": 15.0, "every_updates": 15, "apart": True}
    ),
    "evaluations go on beside": (
        100, {"seconds": noisy(2.0, 0.1), "evaluation_s": 10.0, "every_updates": 5, "slowed": 0.5}
    ),
    "evaluations beside that cost nothing": (
        100, {"seconds": noisy(2.0, 0.1), "evaluation_s": 6.0, "every_updates": 5, "slowed": 0.0}
    ),
    "a checkpoint every fifth update": (100, {"seconds": lambda update: 9.0 if update % 5 == 0 else 3.0}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
def test_the_end_is_right_within_a_fifth(case: str, share: float) -> None:
    number, arguments = CASES[case]
    rows, evaluations, end = timeline(number, **arguments)
    made = math.ceil(share * number)
    now = rows[made - 1]["time_s"]
    known = [each for each in evaluations if each["time_s"] <= now]
    left = TimeLeft(
        number,
        every(arguments.get("every_updates", 0), number) if "evaluation_s" in arguments else lambda _: False,
        arguments.get("apart", False),
        clock=lambda: now,
    ).seconds(rows[:made], known)
    assert left is not None and abs(left - (end - now)) <= 0.2 * (end - now), (left, end - now)


def test_a_pause_and_an_interruption_are_no_pace() -> None:
    rows, _, _ = timeline(100, lambda _: 4.0)
    for row in rows[20:]:
        row["time_s"] += 7200.0
    assert TimeLeft(100, clock=lambda: rows[39]["time_s"]).seconds(rows[:40]) == pytest.approx(240.0)


def test_it_counts_down_between_two_updates_and_never_below_nothing() -> None:
    rows, _, _ = timeline(10, lambda _: 4.0)
    at = rows[4]["time_s"]
    assert TimeLeft(10, clock=lambda: at + 3).seconds(rows[:5]) == pytest.approx(17.0)
    assert TimeLeft(10, clock=lambda: at + 300).seconds(rows[:5]) == pytest.approx(16.0)
    assert TimeLeft(10, clock=lambda: at + 300).seconds(rows) == 0.0


def test_without_updates_or_figures_nothing_is_promised() -> None:
    rows, _, _ = timeline(10, lambda _: 4.0)
    assert TimeLeft(10).seconds([]) is None and TimeLeft(10).seconds(rows[:1]) is None
    broken = [dict(row, wait_s=None, update_s=math.nan) for row in rows]
    assert TimeLeft(10, clock=lambda: rows[4]["time_s"]).seconds(broken[:5]) is not None
    bare = [{"update": row["update"], "time_s": row["time_s"]} for row in rows]
    assert TimeLeft(10, clock=lambda: rows[4]["time_s"]).seconds(bare[:5]) == pytest.approx(20.0)
