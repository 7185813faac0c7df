"""What a user reads while a run goes on."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from rayzero.services.observe.progress import ProgressView, sparkline


def row(update: int, **changes: Any) -> dict[str, Any]:
    return {
        "update": update,
        "reward_mean": 0.25 * update,
        "train_accuracy": 0.5,
        "completion_tokens": 100.0,
        "staleness_mean": 0.0,
        "staleness_max": 0,
        "entropy": 1.5,
        "uniform_group_share": 0.0,
        "warnings": [],
        **changes,
    }


def shown(*rows: dict[str, Any], terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)
    with ProgressView(console, num_updates=4) as progress:
        for values in rows:
            progress.on_update(values, [])
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(output, str)
    return output


def test_a_pipe_gets_one_plain_line_an_update() -> None:
    lines = shown(row(1), row(2)).splitlines()
    assert len(lines) == 2
    for part in ("update    2/4", "reward 0.500", "staleness 0.0", "entropy 1.50", "left 0:0"):
        assert part in lines[1]


def test_a_terminal_gets_the_panel() -> None:
    output = shown(row(1), row(2), terminal=True)
    for part in ("2/4", "reward", "held-out accuracy", "tokens/s", "staleness", "time left"):
        assert part in output


def test_the_learners_warnings_are_shown() -> None:
    output = shown(row(1, warnings=["nothing can be learned"], entropy=float("nan")))
    assert "update 1: nothing can be learned" in output
    assert "entropy –" in output


def test_sparkline_scales_to_its_own_range() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([]) == ""
