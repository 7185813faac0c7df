"""What a reward prints is seen at once, the first lines of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rayzero.services.run import first_lines
from rayzero.services.run.first_lines import NUM_LINES, FirstLines, first_lines_shown
from rayzero.services.schema.config.loader import validate_recipe
from tests.fakes import make_recipe


def test_whole_lines_that_are_added_are_shown_up_to_a_few(tmp_path: Path) -> None:
    log, shown = tmp_path / "reward-0.log", list[str]()
    log.write_text("of yesterday\n")
    reader = FirstLines(tmp_path, shown.append)
    with log.open("a") as file:
        file.write("one [/red] \x1b[31m\n\nhal")
        file.flush()
        reader.read()
        assert shown == ["reward-0: one [/red] \x1b[31m"]
        file.write("f\n")
    (tmp_path / "reward-1.log").write_bytes(b"\xff other\n")
    (tmp_path / "learner.log").write_text("not this one\n")
    reader.read()
    assert shown[1:] == ["reward-0: half", "reward-1: \ufffd other"]
    with log.open("a") as file:
        file.writelines(f"line {number}\n" for number in range(100))
    reader.read()
    assert len(shown) == NUM_LINES + 1 and shown[-1] == f"what rewards print further is in {tmp_path}"


async def test_a_run_with_a_custom_reward_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_lines, "POLL_S", 0.01)
    content = make_recipe().model_dump(mode="json")
    content["reward"]["rubrics"] = {"default": {"r": {"kind": "custom", "function": "mine:f"}}}
    custom, shown = validate_recipe(content, {}, default_origin="x.yaml"), list[str]()
    async with first_lines_shown(custom, tmp_path, shown.append):
        (tmp_path / "reward-0.log").write_text("early\n")
        for _ in range(200):
            await asyncio.sleep(0.01)
            if shown:
                break
        assert shown == ["reward-0: early"]
        with (tmp_path / "reward-0.log").open("a") as log:
            log.write("late\n")
    assert shown == ["reward-0: early", "reward-0: late"]


async def test_a_run_without_one_looks_at_nothing(tmp_path: Path) -> None:
    content = make_recipe().model_dump(mode="json")
    content["reward"]["rubrics"] = {"default": {"r": {"kind": "math"}}}
    plain, shown = validate_recipe(content, {}, default_origin="x.yaml"), list[str]()
    async with first_lines_shown(plain, tmp_path, shown.append):
        (tmp_path / "reward-0.log").write_text("a warning\n")
    assert shown == []
