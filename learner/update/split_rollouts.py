"""Episodes that no micro-batch holds whole, trained exactly: the loss first, on the tokens of all their parts together.

    parts -> forward without gradient -> loss of whole rollouts -> d loss / d log-probability of each token
          -> forward of each part -> backward with those numbers

A ratio over a rollout, a rule that leaves a rollout out, a loss of the user's own: none of them can be computed from a
part. Each gets here what it would have of one large micro-batch, for one forward pass more of the parts alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rayzero.learner.batch.batching import Microbatch, lay_out
from rayzero.learner.model.policy import Policy
from rayzero.learner.objective.loss import LossInputs, LossOutputs, microbatch_loss
from rayzero.learner.update.step_inputs import StepInputs
from rayzero.services.schema.config.learner import LearnerSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRollouts:
    """The loss of all partial micro-batches of a step, as if they were one. Every tensor is [N], 0 elsewhere."""

    loss: Tensor
    num_tokens: int
    """Of them all."""
    policy_gradient: Tensor
    """Of the loss in each log-probability."""
    entropy_gradient: Tensor | None
    """None where the loss has no entropy: the head would compute its gradient for nothing."""
    clipped: Tensor
    correction: Tensor
    kl: Tensor | None

    @staticmethod
    def of(
        microbatches: Sequence[Microbatch], policy: Policy, inputs: StepInputs, settings: LearnerSettings
    ) -> SplitRollouts | None:
        """Those among the micro-batches of a step; None where all of them hold whole rollouts. All ranks must ask."""
        parts = [each for each in microbatches if each.partial]
        if not parts:
            return None
        tokens = np.sort(np.concatenate([part.batch_tokens for part in parts]))
        values = _scored(parts, policy, inputs.batch.num_tokens)[:, tokens]
        logprobs, entropies = (each.clone().requires_grad_() for each in values)
        rows, samples = np.unique(inputs.batch.token_rows[tokens], return_inverse=True)
        outputs = microbatch_loss(inputs.of_tokens(tokens, rows, samples, logprobs, entropies), settings)
        gradients = torch.autograd.grad(outputs.loss, (logprobs, entropies), allow_unused=True)

        def whole(some: Tensor) -> Tensor:
            out = torch.zeros(inputs.batch.num_tokens, dtype=some.dtype)
            out[tokens] = some.detach().cpu()
            return out

        of_policy, of_entropy = gradients

        return SplitRollouts(
            loss=outputs.loss.detach(),
            num_tokens=len(tokens),
            policy_gradient=whole(torch.zeros_like(logprobs) if of_policy is None else of_policy),
            entropy_gradient=None if of_entropy is None else whole(of_entropy),
            clipped=whole(outputs.clipped),
            correction=whole(outputs.correction),
            kl=None if outputs.kl is None else whole(outputs.kl),
        )

    def outputs(self, part: Microbatch, inputs: LossInputs, counts: bool) -> LossOutputs:
        """A part's share of the loss, whose gradient is that of the whole loss in the part's tokens."""
        device = inputs.policy_logprobs.device

        def of_part(values: Tensor) -> Tensor:
            return values[part.batch_tokens].to(device)

        pull = torch.dot(of_part(self.policy_gradient), inputs.policy_logprobs)
        if self.entropy_gradient is not None:
            pull = pull + torch.dot(of_part(self.entropy_gradient), inputs.entropies)
        share = self.loss.to(device) * (len(part.batch_tokens) / self.num_tokens)
        return LossOutputs(
            loss=(pull - pull.detach() + share) * counts,
            clipped=of_part(self.clipped),
            correction=of_part(self.correction),
            kl=None if self.kl is None else of_part(self.kl),
        )


def _scored(parts: Sequence[Microbatch], policy: Policy, num_tokens: int) -> Tensor:
    """[2, N] log-probabilities and entropies of the policy of now, 0 where no part has the token."""
    ranks = policy.ranks
    # As many for each rank: all of them must compute at once where they shard the model.
    missing = -len(parts) % ranks.world_size
    with torch.no_grad():
        scored = [
            (part, torch.stack(policy.logprobs(part)) * counts)
            for part, counts in ranks.deal([*parts, *([lay_out([])] * missing)])
        ]
    values = scored[0][1].new_zeros(2, num_tokens)
    for part, scores in scored:
        values[:, part.batch_tokens] += scores
    return ranks.sum(values)
