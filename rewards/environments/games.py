"""Environments that come with rayzero: guess a number, and a calculator for a model too small for JSON.

Both read whole turns (`tool_parser: text`). Their rows are services/data/tasks/games.py's.
"""

from __future__ import annotations

import re

from rayzero.rewards.environments.tools import calculator

_CALL = re.compile(r"<calc>([^<]{1,200})</calc>")


class GuessNumber:
    """A secret number from 1 to 16 (by its row): `+` says that it is higher than the guess, `-` that it is lower.

    The reward is 1 for the number itself; without it, at most one half, for how near the last guess came.
    """

    def __init__(self, max_number: int = 16) -> None:
        """`max_number`: the largest that a secret may be; sets the scale of what nearness is worth."""
        self.max_number = max_number
        self.secret, self.nearness, self.won = 0, 0.0, False

    def reset(self, answer: str, **row: object) -> None:
        """A new secret; the prompt has said all that there is to say."""
        self.secret, self.nearness, self.won = int(answer), 0.0, False

    def guess(self, number: str) -> str | None:
        """Guess the number.

        Args:
            number: The guess, as digits.
        """
        text = number.strip()
        if not (text.isascii() and text.isdigit() and len(text) <= 4):
            self.nearness = 0.0
            return "?"
        distance = abs(int(text) - self.secret)
        self.won = distance == 0
        self.nearness = max(0.0, 1.0 - distance / self.max_number)
        if self.won:
            return None
        return "+" if int(text) < self.secret else "-"

    def get_reward(self) -> float:
        """1, or up to one half."""
        return 1.0 if self.won else 0.5 * self.nearness


class Calculator:
    """`<calc>482*391</calc>` is calculated and answered with `<result>188462</result>`; any other turn is the last."""

    def reset(self, **row: object) -> None:
        """The prompt has shown how it is used."""

    def hear(self, turn: str) -> str | None:
        """Calculate, where asked.

        Args:
            turn: All that the model said.
        """
        call = _CALL.search(turn)
        if call is None:
            return None
        return f"<result>{calculator(call[1])}</result>"
