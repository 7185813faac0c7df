"""A game of textarena for one player, as an environment of whole turns.

textarena draws from the process-wide generator, and every episode has a process of its own. Of what a game says only
the new is handed on: the history that its wrappers would repeat is in the model's context already.
"""

from __future__ import annotations

import sys
from typing import Any


class TextArenaGame:
    """Any of textarena's games that one player plays; rewarded as the game rewards, 0 for one that is not finished."""

    def __init__(self, game: str, packages: str | None = None, **options: Any) -> None:
        """`game`: as textarena registers it. `packages`: a folder that holds textarena, if this Python has it not.

        Raises:
            ValueError: textarena is not there, has no such game, or the game takes no such options.
        """
        if packages and packages not in sys.path:
            sys.path.append(packages)  # behind all that is installed here: it must not replace what rayzero runs on
        try:
            import textarena
        except ImportError as error:
            raise ValueError(
                f"textarena cannot be imported ({error}): pip install --target FOLDER textarena, and name the folder "
                "in environment.packages"
            ) from None
        try:
            self._game = textarena.make(f"{game.removesuffix('-raw')}-raw", **options)
        except Exception as error:  # of the game's own class, or of the registry
            raise ValueError(f"textarena cannot make {game}: {error}") from None
        self._reward = 0.0

    def reset(self, seed: int, **row: Any) -> str:
        """Begin; what the game says first.

        Raises:
            ValueError: the game is for more than one player.
        """
        self._reward = 0.0
        try:
            self._game.reset(num_players=1, seed=seed % 2**31)
        except AssertionError as error:
            raise ValueError(f"the game does not start with one player: {error}") from None
        return self._heard()

    def act(self, turn: str) -> str | None:
        """Make a move.

        Args:
            turn: All that the model said.
        """
        is_over, _ = self._game.step(action=turn)
        if not is_over:
            return self._heard()
        rewards, _ = self._game.close()
        self._reward = float((rewards or {}).get(0, 0.0))
        return None

    def get_reward(self) -> float:
        """The game's own, once it is finished; 0 before."""
        return self._reward

    def _heard(self) -> str:
        """What the game, not the player, said since it was last asked."""
        _, said = self._game.get_observation()
        texts = [str(text).strip("\n") for _, text, kind in said if getattr(kind, "name", "") != "PLAYER_ACTION"]
        return "\n" + "\n".join(texts)
