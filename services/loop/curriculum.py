"""Which prompts are worth sampling now: skips solved ones, defers hopeless ones, and tries both again later.

A group whose completions are all right, or all wrong, has no advantage and teaches nothing. So every prompt's pass rate
is kept as an exponential mean of its groups'; a prompt past a bound is passed over at so many of its visits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rayzero.services.data.stream import PromptStream
from rayzero.services.loop.evaluation import is_accurate
from rayzero.services.schema.config.data import CurriculumSettings
from rayzero.services.schema.messages import Group, Prompt


@dataclass(slots=True)
class Curriculum:
    """A prompt source in front of another. What it learns counts from the next prompt on, in the groups' order:
    so a run in which the same groups are finished gives the same prompts, whichever was finished first."""

    stream: PromptStream
    num_prompts: int
    """So many visits in a row are passed over at most."""
    settings: CurriculumSettings
    passed_over: Counter[str] = field(default_factory=Counter)
    """Visits, by why: `solved`, `hopeless`."""
    _rates: dict[str, float] = field(default_factory=dict)
    """Pass rate of every prompt that was judged, by its id."""
    _turns_left: dict[str, int] = field(default_factory=dict)
    """How many more visits a prompt is passed over."""
    _last_seen: dict[str, int] = field(default_factory=dict)
    """When a prompt was given last, counted in prompts given."""
    _num_given: int = 0
    _unread: dict[int, tuple[str, float]] = field(default_factory=dict)
    """(prompt, pass rate) of groups that are judged and not yet counted, by the group's number."""

    def next(self) -> Prompt:
        """The next prompt that is not passed over; where all are, the one that was given longest ago."""
        self._read()
        passed: list[Prompt] = []
        while len(passed) < self.num_prompts:
            prompt = self.stream.next()
            left = self._turns_left.get(prompt.prompt_id, 0)
            if left == 0:
                return self._give(prompt)
            self._turns_left[prompt.prompt_id] = left - 1
            solved = self._rates[prompt.prompt_id] >= self.settings.skip_above
            self.passed_over["solved" if solved else "hopeless"] += 1
            passed.append(prompt)
        return self._give(min(passed, key=lambda prompt: self._last_seen[prompt.prompt_id]))

    def learn(self, group: Group) -> None:
        """A group is judged: what it says of its prompt counts when the next prompt is asked for."""
        judged = group.judged
        if judged:
            rate = sum(is_accurate(rollout) for rollout in judged) / len(judged)
            self._unread[group.group_id] = (group.prompt.prompt_id, rate)

    def counts(self) -> Mapping[str, int]:
        """Visits that were passed over, by why."""
        return self.passed_over

    def find(self, prompt_id: str) -> Prompt:
        """The prompt of an id."""
        return self.stream.find(prompt_id)

    def state_dict(self) -> dict[str, Any]:
        """The stream's cursor and all that was learnt."""
        return {
            "stream": self.stream.state_dict(),
            "passed_over": dict(self.passed_over),
            "rates": dict(self._rates),
            "turns_left": dict(self._turns_left),
            "last_seen": dict(self._last_seen),
            "num_given": self._num_given,
            "unread": [(group_id, *found) for group_id, found in self._unread.items()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.stream.load_state_dict(state["stream"])
        self.passed_over = Counter(state["passed_over"])
        self._rates, self._turns_left = dict(state["rates"]), dict(state["turns_left"])
        self._last_seen, self._num_given = dict(state["last_seen"]), state["num_given"]
        self._unread = {group_id: (prompt_id, rate) for group_id, prompt_id, rate in state["unread"]}

    def _give(self, prompt: Prompt) -> Prompt:
        self._last_seen[prompt.prompt_id] = self._num_given
        self._num_given += 1
        return prompt

    def _read(self) -> None:
        settings = self.settings
        for _, (prompt_id, rate) in sorted(self._unread.items()):
            mean = self._rates.get(prompt_id, rate)
            mean += settings.newest_share * (rate - mean)
            self._rates[prompt_id] = mean
            if mean >= settings.skip_above:
                self._turns_left[prompt_id] = settings.skip_epochs
            elif mean <= settings.defer_below:
                self._turns_left[prompt_id] = settings.defer_epochs
            else:
                self._turns_left.pop(prompt_id, None)
        self._unread.clear()
