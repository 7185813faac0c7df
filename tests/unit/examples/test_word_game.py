"""The example environment, as a run would use it, and as TRL finds its tools."""

from __future__ import annotations

import inspect

from examples.word_game import WordGame
from rayzero.services.run.environment_trial import check
from rayzero.services.schema.config.environment import PythonEnvironment


def test_it_is_well() -> None:
    settings = PythonEnvironment(factory="examples.word_game:WordGame")
    assert check(settings, {"answer": "crane", "prompt": "Guess."}, as_json=True) == 0


def test_it_plays() -> None:
    game = WordGame()
    assert game.reset(answer="CRANE", prompt="Guess.") == " It begins with C."
    assert game.guess("cabin") == "Ca..n" and game.get_reward() == 0.0
    assert game.guess("crane") == "CRANE" and game.done and game.get_reward() == 0.9


def test_trl_finds_the_same_tool() -> None:
    methods = [name for name, _ in inspect.getmembers(WordGame, inspect.isfunction) if not name.startswith("_")]
    assert set(methods) - {"reset", "get_reward"} == {"guess"}
