"""`rayzero samples`: what a model wrote reaches a terminal or a file as text, one group or many."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rayzero.services.cli.samples import Format, components, samples
from rayzero.services.observe.browse.rollout_index import Filter
from rayzero.services.observe.recorder import Recorder
from rayzero.services.schema.errors import UsageError
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import make_group, make_recipe

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eabc\ud800[/red]"
OBEYED = ("\x1b", "\x9b", "\u202e", "\x07")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    directory = RunDirectory(tmp_path / "run")
    directory.prepare(make_recipe())
    directory.release()
    groups = []
    for number in (0, 1):
        group = make_group(number)
        rollouts = tuple(
            replace(
                rollout,
                completion=replace(rollout.completion, text=HOSTILE),
                verdict=replace(rollout.verdict, reason=HOSTILE),
            )
            for rollout in group.rollouts
        )
        groups.append(replace(group, rollouts=rollouts, prompt=replace(group.prompt, answer=HOSTILE, source=HOSTILE)))
    Recorder(directory).on_update({"update": 1, "time_s": 1.0, "completion_tokens": 1}, groups)
    return directory.path


def show(run: Path, form: Format, out: Path | None = None, key: str | None = None) -> None:
    samples(str(run), run.parent, Filter(), "newest", 10, form, out, key)


@pytest.mark.parametrize("form", ["table", "jsonl"])
def test_a_completion_gives_the_terminal_no_command(
    run: Path, form: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    show(run, form)
    shown = capsys.readouterr().out
    assert not [letter for letter in OBEYED if letter in shown] and "owned" in shown
    if form == "jsonl":
        texts = [rollout["completion"] for line in shown.splitlines() for rollout in json.loads(line)["rollouts"]]
        assert set(texts) == {HOSTILE.replace("\ud800", r"\ud800")}


@pytest.mark.parametrize("form", ["table", "jsonl", "html"])
def test_one_group_in_every_format(run: Path, form: Format, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "one"
    show(run, form, out, "update_000001:1")
    text = capsys.readouterr().out if form == "table" else out.read_text()
    assert "update_000001:1" in text and "update_000001:0" not in text


def test_a_group_that_is_not_there_is_named(run: Path) -> None:
    with pytest.raises(UsageError, match="there is no group 'update_000009:1'"):
        show(run, "html", None, "update_000009:1")


def test_a_reward_is_shown_with_what_it_is_the_sum_of() -> None:
    scores = {"short": 0.72, "accuracy": 0.0, "watched": 1.0, "bonus": 2.0, "short/length": 31.0}
    row = {"components": scores, "parts": {"short": [0.2, 0.72], "accuracy": [1.0, 0.0], "bonus": [1.0, 0.0]}}
    assert list(components(row)) == [
        "short 0.72 × 0.2",
        "accuracy 0 × 1",
        "bonus 0 × 1 (gate closed)",
        "watched 1 × 0",
        "short/length 31",
    ]
    assert list(components({"components": {"short": 0.72}})) == ["short 0.72"]


def test_the_prompt_stands_beside_its_answer_above_the_completions(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(run, "table")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    at = next(number for number, line in enumerate(lines) if line.startswith("prompt: "))
    assert lines[at + 1].startswith("answer: ") and not any("─" in line for line in lines[:at])


@pytest.mark.parametrize("form", ["table", "brief", "jsonl"])
def test_nothing_that_matches_is_no_error(run: Path, form: Format, capsys: pytest.CaptureFixture[str]) -> None:
    samples(str(run), run.parent, Filter(min_reward=99.0), "newest", 10, form, None, None)
    found = capsys.readouterr()
    assert not found.out and found.err.startswith("none of ") and len(found.err.splitlines()) == 1


def test_nothing_that_matches_leaves_no_older_lines_in_a_file(run: Path) -> None:
    out = run.parent / "found.jsonl"
    out.write_text("those of another question")
    samples(str(run), run.parent, Filter(min_reward=99.0), "newest", 10, "jsonl", out, None)
    assert out.read_text() == ""


def test_in_brief_are_prompt_answer_and_counts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(run, "brief")
    shown = capsys.readouterr().out
    assert not [letter for letter in OBEYED if letter in shown]
    lines = shown.splitlines()
    assert len(lines) == 10 and lines[1].startswith("prompt: ") and lines[2].startswith("answer: "), shown
    assert lines[3] == lines[8] == "1 correct, 1 wrong, reward 0.5"
