"""A v1 taskset of verifiers on one screen: the model guesses a number, and the environment says `+` or `-`. It runs in
the Python that has verifiers, and knows nothing of rayzero.

python3 -m venv .venv-verifiers && .venv-verifiers/bin/pip install verifiers==0.4.0
rayzero train examples/number_taskset.yaml
"""

import random
from collections.abc import Iterator

import verifiers.v1 as vf

__all__ = ["NumberEnv", "NumberTaskset"]


class NumberData(vf.TaskData):
    """One game."""

    secret: int


class NumberTask(vf.Task[NumberData, vf.State, vf.TaskConfig]):
    """Nothing to prepare; the environment is the judge."""


class NumberConfig(vf.TasksetConfig):
    """What a recipe may say in `arguments`."""

    max_number: int = 16


class NumberTaskset(vf.Taskset[NumberTask, NumberConfig]):
    """Ten thousand games, always the same."""

    def load(self) -> Iterator[NumberTask]:
        """Each with a number of its own in its prompt, which says nothing of the secret."""
        chance = random.Random("numbers")
        for game in range(10_000):
            data = NumberData(prompt=f"{game:04d}?", secret=chance.randint(1, self.config.max_number))
            yield NumberTask(data, self.config.task)


class NumberEnvConfig(vf.EnvConfig):
    """Who plays."""

    player: vf.AgentConfig = vf.AgentConfig()


class NumberEnv(vf.Env[NumberEnvConfig]):
    """The game, as the player's user."""

    async def run(self, task: NumberTask, agents: vf.Agents) -> None:
        """1 for the number itself; without it at most one half, for how near the last guess came."""
        secret, reward = task.data.secret, 0.0
        async with agents.player.interaction(task) as game:
            turn = await game.turn()
            while not turn.terminated:
                text = turn.last_reply
                number = int(text) if text.isascii() and text.isdigit() else None
                reward = 0.0 if number is None else 0.5 * max(0.0, 1.0 - abs(number - secret) / 16)
                if number == secret:
                    reward = 1.0
                    break
                turn = await game.turn("?" if number is None else "+" if number < secret else "-")
        game.trace.record_reward("game", reward, 1.0)
