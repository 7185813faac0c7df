"""`rayzero env play`: typed lines are turns, calls where there are tools; a person plays an episode to its end."""

from __future__ import annotations

import pytest

from rayzero.services.run import environment_play
from rayzero.services.run.environment_play import read_turn
from rayzero.services.schema.episodes import ToolCall
from rayzero.services.schema.errors import UsageError
from tests.fakes_episodes import environment


def test_a_person_plays(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["ha", "bye"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    environment_play.play(environment("Echo", tool_parser="text"), {"prompt": "say"}, None, 8, 0)
    shown = capsys.readouterr().out
    assert "hahaha" in shown and "answered; reward none" in shown


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(UsageError, match="NoSuch"):
        environment_play.play(environment("NoSuch", tool_parser="text"), {}, None, 8, 0)


def test_a_typed_line_is_a_call_where_there_are_tools() -> None:
    assert read_turn('add {"number": 3}', reads_calls=True).tool_calls == (
        ToolCall(name="add", arguments={"number": 3}, call_id="typed"),
    )
    assert not read_turn("it is three", reads_calls=True).tool_calls
    assert read_turn("12", reads_calls=False).content == "12"
