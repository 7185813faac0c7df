"""Supervised fine-tuning on completions, with the policy and the master weights of the update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from rayzero.learner.batch.batching import Microbatch, pack
from rayzero.learner.batch.samples import TrainingSample
from rayzero.learner.model.policy import Policy
from rayzero.learner.update.optimizer import MasterOptimizer, learning_rate
from rayzero.services.schema.config.learner import ComputeSettings, OptimizerSettings
from rayzero.services.schema.errors import RunHalted
from rayzero.services.schema.interfaces import SftExample


class SftTrainer:
    """Minimises the mean negative log-probability of completion tokens, over all tokens of a batch."""

    def __init__(
        self,
        policy: Policy,
        optimizer: MasterOptimizer,
        compute: ComputeSettings,
        *,
        settings: OptimizerSettings,
        num_updates: int,
    ) -> None:
        """`settings` are those of the supervised updates alone; `num_updates` is where their rate has fallen to its
        floor."""
        self._policy, self._optimizer, self._compute = policy, optimizer, compute
        self._settings, self._num_updates = settings, num_updates

    def step(self, examples: Sequence[SftExample], update: int) -> Mapping[str, float]:
        """Optimizer step `update`, from 0, on a batch. Returns loss (nats a token), grad_norm, tokens, learning_rate.

        Raises RunHalted when the loss or gradient is not finite; the step is then not applied.
        """
        if update == 0:
            self._optimizer.begin(self._settings)
        samples = _samples(examples)
        microbatches = pack(
            samples,
            tokens_per_microbatch=self._compute.tokens_per_microbatch,
            share_prompts=self._compute.share_prompts,
            pair_cost=self._policy.pair_cost,
            multiple_of=self._policy.ranks.world_size,
        )
        num_tokens = max(sum(sample.num_tokens for sample in samples), 1)
        while True:
            total = self._gradient(microbatches, num_tokens)
            if self._optimizer.settle():  # a gradient that float16 could not hold is computed again
                break
        grad_norm = self._optimizer.grad_norm()
        if not np.isfinite(total) or not np.isfinite(grad_norm):
            self._optimizer.zero_grad()
            raise RunHalted(
                f"the supervised step was not applied: its loss is {total:g} and its gradient's norm "
                f"{grad_norm:g}; lower the learning rate"
            )
        rate = learning_rate(update, self._num_updates, self._settings)
        self._optimizer.step(rate, grad_norm)
        return {"loss": total, "grad_norm": grad_norm, "tokens": float(num_tokens), "learning_rate": rate}

    def _gradient(self, microbatches: Sequence[Microbatch], num_tokens: int) -> float:
        """Of the mean over the batch's tokens; the loss."""
        sums = torch.zeros((), device=self._policy.device)
        for microbatch, counts in self._policy.ranks.deal(microbatches):
            # At temperature 1, whatever the engines sample at: else the model that is made is right at that one alone.
            logprobs, _ = self._policy.logprobs(microbatch, temperature=1.0)
            loss = -logprobs.sum() / num_tokens * counts
            self._optimizer.loss_scale.of(loss).backward()  # type: ignore[no-untyped-call]
            sums += loss.detach()
        return float(self._policy.ranks.sum(sums))


def _samples(examples: Sequence[SftExample]) -> list[TrainingSample]:
    """Rows for packing. Equal prompts share one group, so that their prompt is laid once."""
    groups: dict[bytes, int] = {}
    samples, start = [], 0
    for row, (prompt, completion) in enumerate(examples):
        if len(prompt) == 0:
            raise ValueError(f"example {row}: an empty prompt cannot predict a first token")
        group = groups.setdefault(np.asarray(prompt, dtype=np.int64).tobytes(), len(groups))
        samples.append(TrainingSample(row=row, group=group, prompt_token_ids=prompt, token_ids=completion, start=start))
        start += len(completion)
    return samples
