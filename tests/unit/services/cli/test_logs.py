"""Logs of a run's actors: the last lines, those of one or of a role, and what is added until the run has ended."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from rayzero.services.cli import logs as module
from rayzero.services.cli.logs import logs
from rayzero.services.schema.errors import UsageError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    (folder / "logs").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: demo\n")
    for name in ("driver", "rollout-0", "rollout-1"):
        lines = "".join(f"{name} line {number}\n" for number in range(50))
        (folder / "logs" / f"{name}.log").write_text(lines)
    return folder


def test_the_last_lines_of_an_actor_or_a_role(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs("demo", run.parent, "rollout-1", 2, follow=False)
    assert capsys.readouterr().out.split("\n")[:2] == [
        " rollout-1 | rollout-1 line 48",
        " rollout-1 | rollout-1 line 49",
    ]
    logs("demo", run.parent, "rollout", 1, follow=False)
    assert capsys.readouterr().out.count("line 49") == 2
    logs("demo", run.parent, None, 1, follow=False)
    assert capsys.readouterr().out.count("line 49") == 3
    with pytest.raises(UsageError, match=r"no log of 'learner' .*there are: driver, rollout-0, rollout-1"):
        logs("demo", run.parent, "learner", 1, follow=False)


def test_what_is_added_is_shown_until_the_run_has_ended(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    driver, ended = run / "logs" / "driver.log", threading.Event()
    monkeypatch.setattr(module, "live_run", lambda file: None if ended.is_set() else object())

    def sleep(seconds: float) -> None:
        if not ended.is_set():
            with driver.open("a") as file:
                file.write("added \x1b[31mred\nhalf")
            (run / "logs" / "reward-0.log").write_text("new here\n")
            ended.set()

    monkeypatch.setattr("rayzero.services.cli.logs.time.sleep", sleep)
    logs("demo", run.parent, None, 0, follow=True)
    shown = capsys.readouterr().out
    assert "    driver | added" in shown and "\x1b" not in shown and "half" not in shown
    assert "  reward-0 | new here" in shown


def test_a_log_that_is_cut_meanwhile_is_not_shown_again(run: Path) -> None:
    tail = module._Tail(run / "logs" / "driver.log")
    assert len(tail.last(100)) == 50
    tail.file.write_text("driver line 49\n")
    assert list(tail.more()) == []
    with tail.file.open("a") as file:
        file.write("driver line 50\n")
    assert list(tail.more()) == ["driver line 50"]
