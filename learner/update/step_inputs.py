"""What one optimizer step knows of its tokens before their forward pass, and the loss's inputs for some of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayzero.learner.batch.batching import Microbatch
from rayzero.learner.batch.samples import Batch
from rayzero.learner.objective.loss import LossInputs
from rayzero.learner.objective.losses.base import BatchShape


@dataclass(frozen=True, slots=True)
class Scores:
    """[N] log-probabilities at the start of the batch; none where they are not needed."""

    old: Tensor | None
    reference: Tensor | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Advantages:
    """Of a batch of S samples with N sampled tokens."""

    samples: NDArray[np.float64]
    """[S] of whole episodes; where turns are credited by themselves, the largest of a sample's, its sign left out."""
    tokens: NDArray[np.float64] | None = None
    """[N] of each token's turn. None: each token has its sample's."""

    @property
    def of_all(self) -> NDArray[np.float64]:
        """One by one: of samples, or of tokens where turns are credited by themselves."""
        return self.samples if self.tokens is None else self.tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class StepInputs:
    """Of a batch of S samples with N sampled tokens."""

    batch: Batch
    advantages: Advantages
    shape: BatchShape
    """Of the step's samples."""
    token_weights: NDArray[np.float64]
    """[S] 0 of samples that are not of the step."""
    scores: Scores
    is_reference: bool = False
    """The policy has not moved since it was made the reference."""

    def of(self, microbatch: Microbatch, policy: Tensor, entropies: Tensor, counts: bool = True) -> LossInputs:
        """Those of a micro-batch, from its [n] log-probabilities and entropies; all weights 0 unless it `counts`."""
        return self.of_tokens(
            microbatch.batch_tokens, microbatch.rows, microbatch.token_samples, policy, entropies, counts
        )

    def of_tokens(
        self,
        tokens: NDArray[np.int64],
        rows: NDArray[np.int64],
        samples: NDArray[np.int64],
        policy: Tensor,
        entropies: Tensor,
        counts: bool = True,
    ) -> LossInputs:
        """Those of [n] tokens of the batch, the `samples` of each counted within [s] `rows`."""
        device, scores, by_turn = policy.device, self.scores, self.advantages.tokens

        def of_rows(values: NDArray[np.float64]) -> Tensor:
            return torch.from_numpy(values[rows]).to(device, policy.dtype)

        return LossInputs(
            policy_logprobs=policy,
            entropies=entropies,
            # With one step a batch pi_old is the policy itself, and costs no forward pass.
            old_logprobs=policy.detach() if scores.old is None else scores.old[tokens].to(device),
            rollout_logprobs=torch.from_numpy(self.batch.rollout_logprobs[tokens]).to(device),
            reference_logprobs=self._reference(tokens, policy),
            samples=torch.from_numpy(samples).to(device),
            advantages=of_rows(self.advantages.samples),
            token_weights=of_rows(self.token_weights * counts),
            turn_advantages=None if by_turn is None else torch.from_numpy(by_turn[tokens]).to(device, policy.dtype),
            batch=self.shape,
        )

    def _reference(self, tokens: NDArray[np.int64], policy: Tensor) -> Tensor | None:
        """[n], None where no reference is asked for."""
        if self.is_reference:
            return policy.detach()
        reference = self.scores.reference
        return None if reference is None else reference[tokens].to(policy.device)
