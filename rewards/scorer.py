"""A reward worker without Ray: chooses the rubric by source, counts what comes out."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence

from rayzero.rewards.base import Case, Reward
from rayzero.rewards.registry import Capacity, build_rubric
from rayzero.rewards.rubric import Rubric
from rayzero.services.schema.config.reward import RewardSettings
from rayzero.services.schema.devices import Device
from rayzero.services.schema.errors import ActorStartError, WorkerError
from rayzero.services.schema.messages import Completion, Prompt, Verdict


class Scorer:
    """Scores groups under the recipe's rubrics."""

    def __init__(self, settings: RewardSettings, device: Device = "cpu") -> None:
        """`device`: what reward models compute on; `cuda` where a GPU is reserved for them."""
        self.settings = settings
        self.counts: Counter[str] = Counter()
        """Verdicts by status (`correct`, `wrong`, `error`) and errors by cause (`error:deadline`, …)."""
        self._capacity = Capacity(
            num_children=math.ceil(settings.num_cpus_per_worker), max_asleep=settings.max_asleep, device=device
        )
        self._rubrics: dict[str, Rubric] = {}
        self._rewards: dict[str, Reward] = {}
        """By settings: rubrics that ask for the same share one, with its children."""

    async def start(self) -> None:
        """Build every rubric and make it ready. Raises ActorStartError, naming the rubric and the component."""
        for source in self.settings.rubrics:
            try:
                await self._rubric(source).start()
            except ActorStartError as error:
                raise ActorStartError(f"rubric {source!r}: {error}") from None

    async def score(self, prompt: Prompt, prompt_text: str, completions: Sequence[Completion]) -> tuple[Verdict, ...]:
        """One verdict a completion, in order. Raises WorkerError when no rubric serves the prompt's source."""
        cases = [as_case(prompt, prompt_text, completion) for completion in completions]
        verdicts = await self._rubric(prompt.source).judge(cases, self.settings.deadline_s)
        for verdict in verdicts:
            self.counts[verdict.status.value] += 1
            if verdict.cause is not None:
                self.counts[f"error:{verdict.cause}"] += 1
        return tuple(verdicts)

    async def close(self) -> None:
        """End every child process."""
        await asyncio.gather(*(reward.close() for reward in self._rewards.values()))

    def _rubric(self, source: str) -> Rubric:
        key = source if source in self.settings.rubrics else "default"
        if key not in self._rubrics:
            components = self.settings.rubric_for(source)
            if components is None:
                known = ", ".join(self.settings.rubrics)
                raise WorkerError(f"no rubric for source {source!r}: add it, or `default`, to reward.rubrics ({known})")
            self._rubrics[key] = build_rubric(components, self._capacity, self._rewards)
        return self._rubrics[key]


def as_case(prompt: Prompt, prompt_text: str, completion: Completion) -> Case:
    """A completion as the rewards see it."""
    return Case(
        prompt=prompt,
        prompt_text=prompt_text,
        text=completion.text,
        num_tokens=completion.num_sampled,
        token_ids=completion.token_ids,
        finish_reason=completion.finish_reason,
        outcome=completion.outcome,
        policy_version=completion.newest_version,
    )
