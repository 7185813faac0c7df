"""What the reward benchmark makes of its runs: figures worked out by hand."""

from __future__ import annotations

import pytest

from rayzero.rewards.math.verify import verify
from rayzero.services.bench import rewards as bench


def a_run(num_items: int, healthy_s: float, cpu_s: float, *, wrong: int = 0, causes: int = 0) -> bench.PoolRun:
    hanging = {index for index in range(num_items) if causes and index % 100 == 50}
    verdicts = [None if index in hanging else index >= wrong for index in range(num_items)]
    return bench.PoolRun(
        verdicts=tuple(verdicts),
        latencies_s=(0.001,) * (num_items - len(hanging)),
        healthy_s=healthy_s,
        cpu_s=cpu_s,
        causes=("cpu",) * causes,
    )


def test_every_hundredth_item_hangs() -> None:
    items = bench._with_hanging([("x", "1")] * 250, "asleep")
    assert [index for index, item in enumerate(items) if item == ("", "asleep")] == [50, 150]
    assert bench._with_hanging([("x", "1")], "") == [("x", "1")]


def test_figures_of_spinning_items() -> None:
    base = a_run(200, healthy_s=1.0, cpu_s=2.5)
    figures = bench._hang_figures(base, a_run(200, healthy_s=1.98, cpu_s=3.5, causes=2), "spinning", 0.5)
    assert figures["healthy_per_s"] == pytest.approx(100.0)
    assert figures["drop_percent"] == pytest.approx(50.0)
    assert figures["cpu_share_percent"] == pytest.approx(100 * 2 * bench.SPIN_S / 3.0)
    assert figures["cpu_ms_per_verdict"] == pytest.approx(1e3 * (3.5 - 0.5 - 2 * bench.SPIN_S) / 198)
    assert (figures["changed_verdicts"], figures["failed_healthy"]) == (0, 0)


def test_changed_verdicts_and_failed_items_are_seen() -> None:
    base, other = a_run(200, 1.0, 1.0), a_run(200, 1.0, 1.0, wrong=3, causes=3)
    figures = bench._hang_figures(base, other, "asleep", 0.0)
    assert (figures["changed_verdicts"], figures["failed_healthy"], figures["cpu_share_percent"]) == (3, 1, 0.0)


def test_rows_name_every_figure() -> None:
    assert list(bench._rows({"a": {"b": 0.123456, "c": 2}})) == [("a.b", "0.1235"), ("a.c", "2")]


def test_generated_cases_are_told_apart_by_the_verifier() -> None:
    cases = bench.generated_cases(70)
    assert len(set(cases)) == 70
    assert [verify(completion, gold).correct for completion, gold in cases] == [index % 2 == 1 for index in range(70)]
