"""One update's whole path: groups in, new weights and figures out.

    Groups -> Batch -> advantages -> [pi_old, pi_ref] -> micro-batches -> loss, backward -> watch -> AdamW step

`Learner` is a plain class: learner/actor.py makes a Ray actor of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayzero.learner.batch.batching import Microbatch, pack
from rayzero.learner.batch.samples import Batch, TrainingSample, make_batch
from rayzero.learner.model.policy import Policy
from rayzero.learner.objective.advantage import ADVANTAGES, component_normalised
from rayzero.learner.objective.credit import turn_returns
from rayzero.learner.objective.loss import microbatch_loss
from rayzero.learner.objective.losses.base import AGGREGATIONS, BatchShape
from rayzero.learner.objective.losses.custom import CustomLoss, load_function
from rayzero.learner.update import metrics, stop_conditions
from rayzero.learner.update.metrics import Phases, StepRecord
from rayzero.learner.update.optimizer import MasterOptimizer, learning_rate
from rayzero.learner.update.split_rollouts import SplitRollouts
from rayzero.learner.update.step_inputs import Advantages, Scores, StepInputs
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.errors import RunHalted, UpdateTorn
from rayzero.services.schema.messages import Group, UpdateResult
from rayzero.services.schema.recent_kl import RecentKl


class Learner:
    """Holds the policy, its optimizer and the count of updates."""

    def __init__(
        self,
        policy: Policy,
        settings: LearnerSettings,
        *,
        num_updates: int,
        max_completion_tokens: int,
        stale_cache: bool = False,
        seed: int = 0,
    ) -> None:
        """`num_updates` is the recipe's, for the rate's decay; `max_completion_tokens` the rollout's limit;
        `stale_cache` is for `make_batch`."""
        torch.manual_seed(seed)
        if isinstance(settings.loss, CustomLoss):
            # What cannot be imported or called is no news for the first update.
            load_function(settings.loss.function, settings.loss.arguments)
        self.policy = policy
        self.settings = settings
        self.optimizer = MasterOptimizer(policy, settings.optimizer)
        self.policy_version = 0
        self.num_updates_done = 0
        self._num_updates = num_updates
        self._max_completion_tokens = max_completion_tokens
        self._stale_cache = stale_cache
        self._recent_kl = RecentKl()
        self._is_reference = False
        """The policy has not moved since it was made the reference. Scored apart, the two would differ by rounding, and
        Adam makes a whole step of a gradient that is nothing else."""
        self._keep_reference()

    def update(self, groups: Sequence[Group], next_version: int) -> UpdateResult:
        """Train on `groups` and become `next_version`.

        Raises RunHalted, with the figures and before the optimizer step, when a watched figure passes its stop limit;
        UpdateTorn when earlier steps of the update were taken: the learner then holds no version, and must go.
        """
        phases = Phases()
        with phases("prepare"):
            batch = make_batch(groups, stale_cache=self._stale_cache)
        with phases("score"):
            scores = self._scores(batch)
            advantages = self._advantages(batch, scores)
        rate = learning_rate(self.num_updates_done, self._num_updates, self.settings.optimizer)
        records: list[StepRecord] = []
        steps = [(epoch, rows) for epoch in range(self.settings.inner_epochs) for rows in self._minibatches(batch)]
        for epoch, rows in steps:
            try:
                step = self._step(batch, rows, advantages, scores, rate, phases, is_first_pass=epoch == 0)
            except RunHalted as halt:
                if not records:
                    raise
                taken = f"step {len(records) + 1} of the update was refused, those before it were taken"
                raise UpdateTorn(f"{taken}: {halt}") from None
            records.append(step)
        self.policy_version, self.num_updates_done = next_version, self.num_updates_done + 1
        self._refresh_reference()
        figures = metrics.of_update(advantages.of_all, records, rate) | phases.seconds
        return UpdateResult(
            policy_version=next_version,
            metrics=figures,
            warnings=metrics.warnings_of(batch, advantages.samples, records),
            rollout_kl=metrics.kl_by_group(groups, records),
        )

    def score(
        self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32], temperature: float | None = None
    ) -> NDArray[np.float32]:
        """[T] log-probabilities of a completion, by the code that trains; at the policy's temperature or another."""
        sample = TrainingSample(row=0, group=0, prompt_token_ids=prompt_token_ids, token_ids=token_ids, start=0)
        with torch.no_grad():
            # Not dealt: every rank computes it, and has it.
            parts = [self.policy.logprobs(one, temperature)[0] for one in self._pack([sample]) if one.num_tokens]
        return np.concatenate([part.float().cpu().numpy() for part in parts] or [np.zeros(0, np.float32)])

    def restart(self) -> None:
        """After a supervised start: own optimizer settings, no moments, update 0, a reference of the policy of now."""
        self.optimizer.begin(self.settings.optimizer)
        self.num_updates_done = 0
        self._keep_reference()

    def state_dict(self, keep: Callable[[Tensor], Any]) -> dict[str, Any]:
        """All that a bit-exact resume needs beside the recipe. `keep` takes each weight and moment in turn, and says
        what stands in its place."""
        return {
            "optimizer": self.optimizer.state_dict(keep),
            "reference": self.policy.reference_state(keep),
            "policy_version": self.policy_version,
            "num_updates_done": self.num_updates_done,
            "is_reference": self._is_reference,
            "rng": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`, its tensors in place; on ranks other than 0 their shapes are enough."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.policy.load_reference_state(state["reference"])
        self.policy_version = state["policy_version"]
        self.num_updates_done = state["num_updates_done"]
        self._is_reference = bool(state.get("is_reference", False))
        torch.set_rng_state(state["rng"])

    def _step(
        self,
        batch: Batch,
        rows: NDArray[np.int64],
        advantages: Advantages,
        scores: Scores,
        rate: float,
        phases: Phases,
        is_first_pass: bool,
    ) -> StepRecord:
        """One optimizer step on the samples `rows`."""
        while True:
            record, neutral = self._gradient(batch, rows, advantages, scores, phases)
            with phases("optimizer"):
                if self.optimizer.settle():  # a gradient that float16 could not hold is computed again
                    break
        with phases("optimizer"):
            record.grad_norm = self.optimizer.grad_norm()
            record.finish(batch, int(batch.lengths[neutral].sum()), self.policy_version, self.policy.ranks)
            self._halt_or_warn(record, is_first_pass)
            # At 0 nothing was fed, or all of it masked or rejected: moments of earlier updates alone move weights then.
            if record.grad_norm > 0 or (self.settings.steps_without_gradient and self.optimizer.has_moments):
                self.optimizer.step(rate, record.grad_norm)
                self._is_reference = False
                record.is_by_momentum = record.grad_norm == 0
            else:
                self.optimizer.zero_grad()
        return record

    def _gradient(
        self,
        batch: Batch,
        rows: NDArray[np.int64],
        advantages: Advantages,
        scores: Scores,
        phases: Phases,
    ) -> tuple[StepRecord, NDArray[np.int64]]:
        """The gradient of a step, what was seen on the way, and the rows that give none."""
        token_weights = np.zeros(len(batch.samples))
        token_weights[rows] = self._token_weights(batch, rows)
        with phases("pack"):
            trained = self._trained_rows(batch, rows, advantages)
            microbatches = self._pack([batch.samples[row] for row in trained])
        record = StepRecord()
        neutral = np.setdiff1d(rows, trained)
        with phases("watch"):
            self._watch(record, batch, neutral, scores)
        step = StepInputs(
            batch=batch,
            advantages=advantages,
            shape=self._shape(batch, rows),
            token_weights=token_weights,
            scores=scores,
            is_reference=self._is_reference,
        )
        with phases("forward"):
            split = SplitRollouts.of(microbatches, self.policy, step, self.settings)
        for microbatch, counts in self.policy.ranks.deal(microbatches):
            with phases("forward"):
                inputs = step.of(microbatch, *self.policy.logprobs(microbatch), counts)
                if split is not None and microbatch.partial:
                    outputs = split.outputs(microbatch, inputs, counts)
                else:
                    outputs = microbatch_loss(inputs, self.settings)
            with phases("backward"):
                self.optimizer.loss_scale.of(outputs.loss).backward()  # type: ignore[no-untyped-call]
            if counts:
                record.add(microbatch, inputs, outputs, self.policy.replayed)
        return record, neutral

    def _watch(self, record: StepRecord, batch: Batch, neutral: NDArray[np.int64], scores: Scores) -> None:
        """Score completions that give no gradient, up to `watch.sample_tokens`: what is said of all tokens must not be
        said of the others alone. Groups are drawn at random, and one after the other: each prompt costs once."""
        chance = np.random.default_rng((self.policy_version, len(neutral)))
        drawn = chance.permutation(neutral)
        groups, group = np.unique(batch.groups[drawn], return_inverse=True)
        drawn = drawn[np.argsort(chance.permutation(len(groups))[group], kind="stable")]
        before = np.cumsum(batch.lengths[drawn]) - batch.lengths[drawn]
        chosen = [batch.samples[row] for row in drawn[before < self.settings.watch.sample_tokens]]
        with torch.no_grad():
            for microbatch, counts in self.policy.ranks.deal(self._pack(chosen)):
                policy, entropies = self.policy.logprobs(microbatch)
                if counts:
                    tokens = torch.from_numpy(microbatch.batch_tokens)
                    record.watch(microbatch, policy if scores.old is None else scores.old[tokens], entropies)

    def _advantages(self, batch: Batch, scores: Scores) -> Advantages:
        """From the rewards, shaped first where the recipe says so."""
        added = self.settings.loss.reward_shaping(batch.lengths, self._max_completion_tokens)
        kl = self.settings.kl
        if kl.place == "reward" and scores.old is not None and scores.reference is not None:
            added = added - kl.beta * metrics.kl_per_sample(batch, scores.old, scores.reference, kl.estimator_name)
        name = self.settings.advantage_name
        if name == "component_normalised":
            # The loss's punishment of length is a component of its own, where there is any.
            extra = added[:, None][:, : int(added.any())]
            columns = np.hstack([batch.part_scores, extra]), np.hstack([batch.part_weights, np.ones_like(extra)])
            return Advantages(samples=component_normalised(*columns, batch.groups))
        rewards, credit, turns = batch.rewards + added, self.settings.credit, batch.turns
        if credit.name == "episode":
            return Advantages(samples=ADVANTAGES[name](rewards, batch.groups))
        # Each turn of a group is an observation of its own.
        returns = turn_returns(turns.rewards, turns.rows, rewards, credit.name, credit.discount)
        by_turn = ADVANTAGES[name](returns, batch.groups[turns.rows])
        largest = np.zeros(len(batch.samples))
        np.maximum.at(largest, turns.rows, np.abs(by_turn))
        return Advantages(samples=largest, tokens=by_turn[turns.tokens])

    def _scores(self, batch: Batch) -> Scores:
        """pi_old when several steps or the reward need it, pi_ref when beta > 0: one pass each, at the start, and none
        for a reference that is still the policy."""
        kl = self.settings.kl
        needs_old = self.settings.steps_per_update > 1 or (kl.beta > 0 and kl.place == "reward")
        if not needs_old and (kl.beta == 0 or self._is_reference):
            return Scores(None, None)
        old = torch.zeros(batch.num_tokens) if needs_old else None
        reference = torch.zeros(batch.num_tokens) if kl.beta > 0 and not self._is_reference else None
        with torch.no_grad():
            for microbatch, counts in self.policy.ranks.deal(self._pack(batch.samples)):
                tokens = torch.from_numpy(microbatch.batch_tokens)
                if old is not None:
                    old[tokens] = self.policy.logprobs(microbatch)[0].cpu() * counts
                if reference is not None:
                    reference[tokens] = self.policy.reference_logprobs(microbatch).cpu() * counts
        old = None if old is None else self._of_all_ranks(old)
        if self._is_reference:
            return Scores(old, old)
        return Scores(old, None if reference is None else self._of_all_ranks(reference))

    def _shape(self, batch: Batch, rows: NDArray[np.int64]) -> BatchShape:
        """Of a step."""
        return BatchShape(
            groups=batch.groups[rows],
            lengths=np.where(self._masked(batch), 0, batch.lengths)[rows],
            max_completion_tokens=self._max_completion_tokens,
        )

    def _token_weights(self, batch: Batch, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """[rows] the weight of each token of each sample of a step, all denominators included."""
        shape = self._shape(batch, rows)
        by_name = self.settings.aggregation
        return self.settings.loss.token_weights(shape) if by_name is None else AGGREGATIONS[by_name](shape)

    def _masked(self, batch: Batch) -> NDArray[np.bool_]:
        """[S] left out of the loss."""
        return batch.truncated & (self.settings.truncated == "mask")

    def _trained_rows(self, batch: Batch, rows: NDArray[np.int64], advantages: Advantages) -> NDArray[np.int64]:
        """Rows whose gradient is not exactly zero. Shares were counted before, so denominators keep the others."""
        rows = rows[~self._masked(batch)[rows]]
        kl_in_loss = self.settings.kl.beta > 0 and self.settings.kl.place == "loss"
        all_pull = kl_in_loss or self.settings.entropy_coefficient > 0 or not self.settings.loss.rests_without_advantage
        if all_pull or not self.settings.compute.skip_neutral_groups:
            return rows
        return np.asarray(rows[advantages.samples[rows] != 0], dtype=np.int64)

    def _minibatches(self, batch: Batch) -> list[NDArray[np.int64]]:
        """Rows of each optimizer step of one epoch: whole groups, dealt in turn."""
        count = self.settings.minibatches
        dealt = [np.flatnonzero(batch.groups % count == turn) for turn in range(count)]
        return [rows for rows in dealt if len(rows)]

    def _pack(self, samples: Sequence[TrainingSample]) -> list[Microbatch]:
        compute = self.settings.compute
        return pack(
            samples,
            tokens_per_microbatch=compute.tokens_per_microbatch,
            share_prompts=compute.share_prompts,
            pair_cost=self.policy.pair_cost,
            multiple_of=self.policy.ranks.world_size,
        )

    def _of_all_ranks(self, scores: Tensor) -> Tensor:
        """[N]: each rank has filled in its own tokens and left 0 elsewhere."""
        return self.policy.ranks.sum(scores.to(self.policy.device)).cpu()

    def _halt_or_warn(self, record: StepRecord, is_first_pass: bool) -> None:
        # A later pass compares the same tokens: they are no further evidence.
        recent = self._recent_kl if is_first_pass else None
        try:
            dtype = str(self.policy.dtype).removeprefix("torch.")
            record.warnings = stop_conditions.check(record.figures, self.settings.watch, dtype, recent)
        except Exception:
            # The gradient of a refused step must not leak into the next one, or into a saved state.
            self.optimizer.zero_grad()
            raise

    def _refresh_reference(self) -> None:
        every = self.settings.kl.refresh_every_updates
        if every and self.num_updates_done % every == 0:
            self._keep_reference()

    def _keep_reference(self) -> None:
        if self.settings.kl.beta > 0:
            self.policy.keep_reference()
            self._is_reference = self.settings.kl.reference is None
