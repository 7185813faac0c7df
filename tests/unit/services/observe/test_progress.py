"""What a user reads while a run goes on."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from rayzero.services.observe.progress import ProgressView, sparkline
from rayzero.services.observe.run_terminal import run_console
from rayzero.services.observe.time_left import TimeLeft
from rayzero.services.schema.terminal import Terminal


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
        "time_s": 1000.0 + update,
        **changes,
    }


def shown(*rows: dict[str, Any], terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)
    with ProgressView(console, TimeLeft(4)) as progress:
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
    assert "tokens/s –" in lines[0] and "tokens/s –" not in lines[1], "one update has no time of its own"


def test_a_terminal_gets_the_panel() -> None:
    output = shown(row(1), row(2), terminal=True)
    for part in ("2/4", "reward", "held-out accuracy", "tokens/s", "staleness", "time left"):
        assert part in output


def test_the_learners_warnings_are_shown() -> None:
    output = shown(row(1, warnings=["nothing was learnt"], entropy=float("nan")))
    assert "update 1: nothing was learnt" in output
    assert "entropy –" in output


def test_sparkline_scales_to_its_own_range() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([]) == ""


def drawn(width: int, monkeypatch: pytest.MonkeyPatch | None = None, **environment: str) -> str:
    """The panel of a run of many updates and evaluations, as a terminal of that width is given it."""
    for name, value in environment.items():
        assert monkeypatch is not None
        monkeypatch.setenv(name, value)
    console = Terminal(file=io.StringIO(), force_terminal=True, width=width, highlight=False)
    progress = ProgressView(console, TimeLeft(200))
    progress.accuracies = [(update, 0.5) for update in range(0, 100, 10)]
    progress.look = lambda: {"now": "waits for groups: 3 of 16 are ready, 9 are generated, 4 judged"}
    for update in range(1, 100):
        progress.on_update(row(update, time_s=1000.0 + update, truncated_share=0.3, wait_s=1.0), [])
    console.file = drawing = io.StringIO()
    console.print(progress._render())
    return drawing.getvalue()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 200])
def test_nothing_is_cut_off_in_a_narrow_window(width: int) -> None:
    text = re.sub(r"\x1b\[[\d;]*m", "", drawn(width))
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    assert "…" not in words
    for figure in ("tokens/s", "held-out accuracy 50.0%", "(update 90)", "staleness 0.0", "entropy 1.50", "time left"):
        assert figure in words, words
    assert "3 of 16 are ready, 9 are generated, 4 judged" in words, "what it waits for, in words"
    assert "yellow: 30% of the completions are cut off" in words and "#completions-are-cut-off" in "".join(text.split())


def test_without_colours_the_health_is_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38|9[0-7])[;m\d]*")
    assert coloured.search(drawn(80))
    plain = drawn(80, monkeypatch, NO_COLOR="1")
    assert not coloured.search(plain) and "yellow: " in plain


def test_a_terminal_that_cannot_be_drawn_on_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    output = shown(row(1), row(2), terminal=True)
    assert len(output.splitlines()) == 2 and "\x1b[" not in output.replace("\x1b[1m", "").replace("\x1b[0m", "")


def run_quietly(quiet: bool, capsys: pytest.CaptureFixture[str]) -> str:
    console = run_console(quiet)
    with ProgressView(console, TimeLeft(4)) as progress:
        progress.say("starting Ray")
        progress.on_update(row(1), [])
        progress.on_update(row(2, warnings=["the engine and the learner differ"]), [])
        progress.on_update(row(3, truncated_share=0.9), [])
    return capsys.readouterr().out


def test_a_quiet_run_shows_warnings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert "update    1/4" in run_quietly(False, capsys)
    lines = run_quietly(True, capsys).splitlines()
    assert lines[0] == "update 2: the engine and the learner differ"
    assert lines[1].startswith("red: 90% of the completions are cut off by max_tokens; see docs/guides/debugging.md")
    assert len(lines) == 2


def test_a_log_hears_what_a_run_waits_for_and_that_it_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("rayzero.services.observe.progress.time.monotonic", lambda: now[0])
    console = Console(file=io.StringIO(), width=100, highlight=False)
    progress = ProgressView(console, TimeLeft(4))
    status: dict[str, Any] = {"now": "waits for groups: 0 of 2 are ready", "stalled_s": 0.0, "stall_limit_s": 600.0}
    progress.look = lambda: status
    progress.on_update(row(1), [])
    for passed in (30, 61, 90, 122, 200, 242):
        now[0] = 1000.0 + passed
        progress.glance()
    status["stalled_s"] = 400.0
    progress.glance()
    progress.glance()
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    waits = [line for line in lines if line.startswith("no update for")]
    assert waits == [f"no update for {at}: waits for groups: 0 of 2 are ready" for at in ("1:01", "2:02", "4:02")]
    stands = [line for line in lines if line.startswith("red: ")]
    assert len(stands) == 1 and "nothing has moved for 400 s" in stands[0]
    assert "waits for groups" in stands[0] and "see docs/guides/debugging.md#it-stands-still" in stands[0]


def test_the_time_before_a_phase_is_no_silence_and_a_long_one_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("rayzero.services.observe.progress.time.monotonic", lambda: now[0])
    console = Console(file=io.StringIO(), width=100, highlight=False)
    progress = ProgressView(console, TimeLeft(4))
    progress.look = lambda: {"now": "the held-out prompts are answered"}
    now[0] = 1150.0  # a cold start
    progress.set_phase("evaluating")
    for passed in (10, 50, 200, 201):
        now[0] = 1150.0 + passed
        progress.glance()
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "no update for 3:20: the held-out prompts are answered"
    ]


def test_a_resumed_run_shows_its_own_tokens_a_second_from_the_first_update_on() -> None:
    console = Console(file=io.StringIO(), width=100, highlight=False)
    progress = ProgressView(console, TimeLeft(9))
    progress.resume({}, [row(update, update_s=0.5) for update in (1, 2)], [])
    progress.on_update(row(3, update_s=0.5, time_s=90_000.0), [])
    assert "tokens/s 200 " in console.file.getvalue()  # type: ignore[attr-defined]
