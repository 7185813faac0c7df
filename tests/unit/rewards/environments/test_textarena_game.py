"""Games of textarena: what a game says is handed on once; textarena itself where it is there, and a stand-in of it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from rayzero.rewards.environments.hosts import host_of
from rayzero.services.schema.config.environment import PythonLimits, TextArenaEnvironment
from rayzero.services.schema.episodes import EpisodeOutcome
from rayzero.services.schema.errors import ActorStartError
from tests.fakes_episodes import FakeSessions, episode_request, in_turn, said
from tests.source_tree import ROOT

PACKAGES = os.environ.get("RAYZERO_TEXTARENA", str(ROOT / ".venv-textarena"))
"""A folder with textarena in it."""
STAND_IN = """
import enum, random

class Kind(enum.Enum):
    GAME_MESSAGE = 1
    PLAYER_ACTION = 2

class Game:
    def __init__(self, limit=9):
        self.limit = limit
    def reset(self, num_players, seed):
        assert num_players == 1
        random.seed(seed)
        self.secret, self.said = random.randint(1, self.limit), [(-1, f"below {self.limit}?", Kind.GAME_MESSAGE)]
    def get_observation(self):
        said, self.said = self.said, []
        return 0, said
    def step(self, action):
        self.said.append((0, action, Kind.PLAYER_ACTION))
        self.said.append((-1, "no", Kind.GAME_MESSAGE))
        return action == str(self.secret), {}
    def close(self):
        return {0: 1.0}, {}

def make(name, **options):
    if name != "Secret-v0-raw":
        raise ValueError("not found in registry")
    return Game(**options)
"""


def play(settings: TextArenaEnvironment, *moves: str) -> EpisodeOutcome:
    """One episode of these moves."""

    async def run() -> EpisodeOutcome:
        host = host_of(settings)
        try:
            await host.start()
            record = await host.run_episode(episode_request(), FakeSessions(in_turn(*map(said, moves))))
            assert record.completion.outcome is not None
            return record.completion.outcome
        finally:
            await host.close()

    return asyncio.run(run())


def game(name: str, packages: Any, **settings: Any) -> TextArenaEnvironment:
    """One of a folder's."""
    folder = None if packages is None else str(packages)
    return TextArenaEnvironment(game=name, packages=folder, limits=PythonLimits(turns=20), **settings)


def test_a_game_is_played_in_whole_turns(tmp_path: Path) -> None:
    (tmp_path / "textarena.py").write_text(STAND_IN, encoding="utf-8")
    settings = game("Secret-v0", tmp_path, arguments={"limit": 5})
    outcome = play(settings, *map(str, range(1, 6)))
    assert outcome.end == "answered" and outcome.reward == 1.0
    observed = [message.content for message in outcome.messages if message.role == "user"]
    assert set(observed) == {"\nno"}
    assert play(settings, "6", "7").reward == 0.0
    assert play(settings, *map(str, range(1, 6))).messages == outcome.messages, "the seed decides"
    with pytest.raises(ActorStartError, match="textarena cannot make Chess-v0: not found in registry"):
        play(game("Chess-v0", tmp_path))
    with pytest.raises(ValueError, match="a game reads whole turns"):
        game("Secret-v0", tmp_path, tool_parser="hermes")
    with pytest.raises(ValueError, match=r"arguments\.game: write it beside arguments"):
        game("Secret-v0", tmp_path, arguments={"game": "x"})


@pytest.mark.skipif(importlib.util.find_spec("textarena") is not None, reason="textarena is installed")
def test_a_textarena_that_is_missing_is_named() -> None:
    with pytest.raises(ActorStartError, match="pip install --target FOLDER textarena"):
        play(game("TowerOfHanoi-v0", None))


@pytest.mark.skipif(
    not os.path.exists(PACKAGES), reason="textarena is not there (make setup-environments, or RAYZERO_TEXTARENA=FOLDER)"
)
def test_two_games_of_textarena_itself() -> None:
    moves = ("[A C]", "[A B]", "[C B]", "[A C]", "[B A]", "[B C]", "[A C]")
    outcome = play(game("TowerOfHanoi-v0", PACKAGES), *moves)
    assert (outcome.end, outcome.reward) == ("answered", 1.0)
    assert "A: [3, 2]" in outcome.messages[1].content and "[A C]" not in outcome.messages[1].content
    outcome = play(game("GuessTheNumber-v0", PACKAGES), *(f"[{number}]" for number in range(1, 11)))
    assert outcome.end == "answered" and outcome.reward is not None
    hints = [message.content for message in outcome.messages if message.role == "user"]
    assert "higher" in hints[0] and "[1]" not in hints[0]
