"""`rayzero env check`: a planted hang and a planted difference are found, an honest environment is well."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rayzero.services.run.environment_trial import check
from tests.fakes_episodes import environment

QUICK = {"start_s": 20.0, "step_s": 1.0}


def found(capsys: pytest.CaptureFixture[str], name: str, code: int, row: dict[str, Any], **settings: Any) -> Any:
    """What it says of an environment."""
    assert check(environment(name, limits=QUICK, **settings), row, as_json=True) == code
    return json.loads(capsys.readouterr().out)


def details(report: Any) -> dict[str, str]:
    """What was found, where it is not well."""
    return {each["name"]: each["detail"] for each in report["findings"] if not each["is_well"]}


def test_an_honest_environment_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    report = found(capsys, "Echo", 0, {}, tool_parser="text")
    assert report["sound"] and not details(report)
    assert [each["name"] for each in report["findings"]] == [
        "made and described", "an episode of made-up turns", "the same for the same seed", "two at once",
        "longest step of a kind",
    ]  # fmt: skip


def test_a_planted_hang_and_a_planted_death_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    for harm, said in (("loop", "it hangs: no answer within 1 s to '"), ("exit", "ended with status 3 in say")):
        report = found(capsys, "Hostile", 1, {"harm": harm}, tool_parser="text")
        assert said in details(report)["an episode of made-up turns"]


def test_a_planted_difference_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    report = found(capsys, "Restless", 1, {})
    assert "reset was 'it is " in details(report)["the same for the same seed"]
    assert [tool["function"]["name"] for tool in report["tools"]] == ["add", "subtract"]


def test_what_is_no_environment_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "NoSuch" in details(found(capsys, "NoSuch", 1, {}))["made and described"]
