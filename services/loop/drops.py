"""Groups that were dropped untrained: said as soon as they are more than a few, and an end to replacing them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from rayzero.services.loop.group_buffer import Entry
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.config.training import TrainingSettings
from rayzero.services.schema.errors import NothingToTrainOn

logger = logging.getLogger(__name__)

REMEDIES = {
    DropReason.FAILED: "the log of the worker has the cause",
    DropReason.REFUSED: "rayzero check renders a sample of the prompts",
    DropReason.TOO_LONG: "raise rollout.max_model_tokens, or set data.max_prompt_tokens",
    DropReason.VERDICT_ERRORS: "rayzero samples RUN --status error shows their reasons",
    DropReason.UNIFORM_REWARDS: "the task is too easy or too hard for the model, or the reward never differs",
}
"""Of the reasons for which another prompt takes the place."""


@dataclass(slots=True)
class Drops:
    """Counts since the last update. `say` is called with one sentence when a reason becomes worth a line: at its first
    group (uniform rewards, which are asked for: at a batch of them) and at ten times as many."""

    training: TrainingSettings
    say: Callable[[str], None] = logger.warning
    _version: int = -1
    _since_update: Counter[DropReason] = field(default_factory=Counter)
    _latest: dict[DropReason, str] = field(default_factory=dict)
    _told_from: dict[DropReason, int] = field(default_factory=dict)

    def count(self, version: int, total: int, entry: Entry, reason: DropReason, detail: str = "") -> None:
        """One more, at the learner's `version`; `total` of that reason since the run began.

        Raises:
            NothingToTrainOn: they are more than `training.max_refills` batches, and no update was made meanwhile.
        """
        if reason not in REMEDIES:
            return
        if version != self._version:
            self._version, self._since_update = version, Counter()
        self._since_update[reason] += 1
        self._latest[reason] = detail or f"prompt {entry.prompt.prompt_id}"
        first = self.training.groups_per_update if reason is DropReason.UNIFORM_REWARDS else 1
        seen = self._since_update[reason] if reason is DropReason.UNIFORM_REWARDS else total
        if seen >= self._told_from.setdefault(reason, first):
            self._told_from[reason] = 10 * seen
            self.say(f"dropped: {self._line(reason, seen)}")
        batches = self.training.max_refills
        if self._since_update.total() > batches * self.training.groups_per_update:
            raise NothingToTrainOn(
                f"{self._since_update.total()} groups were dropped since update {version}, and none could be trained "
                f"on (training.max_refills: {batches} batches):\n{self.describe()}"
            )

    def describe(self) -> str:
        """One line a reason, the most frequent first; empty when nothing was dropped since the last update."""
        counts = self._since_update.most_common()
        return "\n".join(f"  dropped since the last update: {self._line(reason, count)}" for reason, count in counts)

    def _line(self, reason: DropReason, count: int) -> str:
        groups = f"{count} group{'s' * (count > 1)}"
        return f"{groups}, {reason.value} (the latest: {self._latest[reason]}); {REMEDIES[reason]}"
