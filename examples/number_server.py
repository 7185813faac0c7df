"""An OpenEnv server on one screen: the model guesses a number, and the server says `+` or `-`. It needs openenv, which
rayzero does not: a run starts it with the Python that has it, and speaks to it over its WebSocket.

python3 -m venv .venv-openenv && .venv-openenv/bin/pip install openenv==0.10.0
rayzero train examples/number_server.yaml
"""

import argparse
from typing import Any

import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State


class Guess(Action):
    """What the model does: the only field takes its whole turn."""

    text: str


class Hint(Observation):
    """What the model sees."""

    text: str = ""


class NumberGame(Environment):
    """1 for the number itself; without it at most one half, for how near the last guess came."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self.secret, self.worth = 0, 0.0

    def reset(self, seed: int | None = None, episode_id: str | None = None, **row: Any) -> Hint:
        """A new secret: the row's column `answer`, which the recipe hands over (`columns: [answer]`)."""
        self.secret, self.worth = int(row["answer"]), 0.0
        return Hint()

    def step(self, action: Guess, timeout_s: float | None = None, **more: Any) -> Hint:
        """A step is worth what it added: the sum of all is what the last guess was worth."""
        number = int(action.text) if action.text.isascii() and action.text.isdigit() else None
        won, before = number == self.secret, self.worth
        nearness = 0.0 if number is None else max(0.0, 1.0 - abs(number - self.secret) / 16)
        self.worth = 1.0 if won else 0.5 * nearness
        hint = "" if won else "?" if number is None else "+" if number < self.secret else "-"
        return Hint(text=hint, reward=self.worth - before, done=won)

    @property
    def state(self) -> State:
        """Nothing that a client needs."""
        return State()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    app = create_fastapi_app(NumberGame, Guess, Hint, max_concurrent_envs=256)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
