"""The reward worker as a Ray actor: a shell around `Scorer`.

Async, so that many groups are scored side by side in one actor: nothing here computes, children and servers do.
"""

from __future__ import annotations

from collections.abc import Sequence

from rayzero.rewards.scorer import Scorer
from rayzero.services.schema.config.reward import RewardSettings
from rayzero.services.schema.messages import Completion, Prompt, Verdict


class RewardActor:
    """Spawned by services/run/placement.py with `ray.remote(RewardActor).options(num_cpus=…, num_gpus=…)`."""

    def __init__(self, settings: RewardSettings) -> None:
        """Cheap: rubrics are built and children forked with the first group of their source."""
        self._scorer = Scorer(settings, "cuda" if settings.num_gpus_per_worker else "cpu")

    async def start(self) -> None:
        """Build every rubric and fork its first children. Raises ActorStartError for what can never work."""
        await self._scorer.start()

    async def score(self, prompt: Prompt, prompt_text: str, completions: Sequence[Completion]) -> tuple[Verdict, ...]:
        """One verdict a completion, in order. Cancelling the call kills the children that work on it."""
        return await self._scorer.score(prompt, prompt_text, completions)

    async def counts(self) -> dict[str, int]:
        """Verdicts so far by status, errors by cause (`error:deadline`, …)."""
        return dict(self._scorer.counts)

    async def shutdown(self) -> None:
        """End every child process."""
        await self._scorer.close()
