"""Who is called with what happens in the loop: observers that record or show it, and the saver of its state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rayzero.services.loop.evaluation import Evaluation
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.messages import Group

if TYPE_CHECKING:
    from rayzero.services.loop.controller import Controller


class Observer(Protocol):
    """Is called with what happened: the recorder writes it down, the progress view shows it."""

    def on_update(self, row: dict[str, Any], groups: Sequence[Group]) -> None:
        """One update is done and its weights are served."""
        ...

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """One pass over the held-out prompts is done."""
        ...

    def on_drop(self, group: Group, reason: DropReason) -> None:
        """A finished group is retired untrained."""
        ...


class Saver(Protocol):
    """Who makes checkpoints (services/loop/checkpointer.py)."""

    async def save(self, controller: Controller) -> None:
        """Save everything that belongs together."""
        ...
