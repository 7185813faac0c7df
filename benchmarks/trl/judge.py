"""The recipe's rewards for completions that no engine of rayzero's made."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from rayzero.rewards.scorer import Scorer
from rayzero.rollout_workers.templates import render
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.messages import Completion, Prompt, Rollout, VersionSpan


class Judge:
    """The recipe's rewards, asked from outside any event loop."""

    def __init__(self, recipe: Recipe, tokenizer: Any, stop_token_ids: Sequence[int]) -> None:
        """Nothing is started before the block is entered."""
        self._recipe, self._tokenizer, self._stops = recipe, tokenizer, set(stop_token_ids)
        self._scorer = Scorer(recipe.reward)
        self._loop = asyncio.Runner()

    def __enter__(self) -> Judge:
        """Start the rewards' processes."""
        self._loop.run(self._scorer.start())
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""
        with self._loop:
            self._loop.run(self._scorer.close())

    def judge(self, prompts: Sequence[Prompt], completion_ids: Sequence[Sequence[int]]) -> list[Rollout]:
        """A verdict for each; neighbours of one prompt are judged as its group."""
        pairs = zip(prompts, completion_ids, strict=True)
        groups = [list(group) for _, group in itertools.groupby(pairs, key=lambda pair: pair[0].prompt_id)]

        async def judge_all() -> list[list[Rollout]]:
            return await asyncio.gather(*(self._group(group) for group in groups))

        return [rollout for group in self._loop.run(judge_all()) for rollout in group]

    async def _group(self, group: Sequence[tuple[Prompt, Sequence[int]]]) -> list[Rollout]:
        prompt = group[0][0]
        text, _ = render(prompt, self._recipe.rollout, self._tokenizer)
        completions = [self._completion(token_ids) for _, token_ids in group]
        verdicts = await self._scorer.score(prompt, text, completions)
        return [Rollout(completion=c, verdict=verdict) for c, verdict in zip(completions, verdicts, strict=True)]

    def _completion(self, token_ids: Sequence[int]) -> Completion:
        count = len(token_ids)
        return Completion(
            text=self._tokenizer.decode(token_ids, skip_special_tokens=True),
            token_ids=np.asarray(token_ids, dtype=np.int32),
            rollout_logprobs=np.zeros(count, dtype=np.float32),
            version_spans=(VersionSpan(start=0, end=count, policy_version=0),),
            finish_reason="stop" if count and token_ids[-1] in self._stops else "length",
        )
