"""What an update says of itself: figures by plain names, from data at hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayzero.learner.batch.batching import Microbatch
from rayzero.learner.batch.samples import Batch
from rayzero.learner.model.ranks import Ranks
from rayzero.learner.model.routing_replay import Replay
from rayzero.learner.objective.kl import KL_ESTIMATORS, k3
from rayzero.learner.objective.loss import LossInputs, LossOutputs
from rayzero.learner.update import stop_conditions
from rayzero.services.schema.messages import Group


class Phases:
    """Seconds by phase: `with phases("forward"): ...` adds to `seconds["forward_s"]`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time one stretch of a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            key = f"{name}_s"
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - started


class StepRecord:
    """Collects detached tensors of one optimizer step; `finish` turns them into figures once, after the backward."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.warnings: list[str] = []
        self.grad_norm = 0.0
        self.is_by_momentum = False
        """Whether weights moved although no token gave a gradient (`learner.steps_without_gradient`)."""
        self.fed_tokens = 0
        self.kl_rollout = np.zeros(0)
        """[S] k3-KL between sampler and learner, mean over each completion's tokens; NaN where none was trained on."""
        self.trained_tokens = 0
        """Completion tokens that gave a gradient, on all ranks; known once `finish` is done."""
        self.num_tokens = 0
        """Completion tokens of the step, with a gradient or without."""
        self._losses: list[Tensor] = []
        self._columns: dict[str, list[Tensor]] = {}
        self._tokens: list[NDArray[np.int64]] = []
        self._watched: list[tuple[NDArray[np.int64], Tensor, Tensor]] = []

    def watch(self, microbatch: Microbatch, old: Tensor, entropies: Tensor) -> None:
        """Remember tokens that give no gradient, for what is said of all tokens. old, entropies [n]."""
        self._watched.append((microbatch.batch_tokens, old, entropies))

    def add(
        self, microbatch: Microbatch, inputs: LossInputs, outputs: LossOutputs, replayed: Replay | None = None
    ) -> None:
        """Remember one micro-batch. Nothing is copied to the host here: that would stall a GPU."""
        self.fed_tokens += microbatch.num_tokens
        self._losses.append(outputs.loss.detach())
        self._tokens.append(microbatch.batch_tokens)
        columns = {
            "policy": inputs.policy_logprobs.detach(),
            "old": inputs.old_logprobs,
            "entropy": inputs.entropies.detach(),
            "clipped": outputs.clipped.float(),
            "correction": outputs.correction,
        }
        if outputs.kl is not None:
            columns["kl"] = outputs.kl
        if replayed is not None:
            columns["routing"] = replayed.counts()[None]
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)

    def finish(self, batch: Batch, num_neutral_tokens: int, policy_version: int, ranks: Ranks) -> None:
        """Compute `figures`. `num_neutral_tokens`: of the step's completions without a gradient, of which those that
        were watched are a sample. Without any token only the gradient norm and a loss of 0 are known."""
        self._gather(ranks)
        self.figures = {"loss": float(sum(self._losses)), "grad_norm": self.grad_norm, "fed_tokens": self.fed_tokens}
        self.kl_rollout = np.full(len(batch.samples), np.nan)
        columns = {name: torch.cat(values) for name, values in self._columns.items()}
        trained = _joined(self._tokens)
        self.trained_tokens = len(trained)
        self.num_tokens = self.trained_tokens + num_neutral_tokens
        if self.trained_tokens:
            rollout = torch.from_numpy(batch.rollout_logprobs[trained])
            rows = batch.token_rows[trained]
            self.kl_rollout = _means_by_row(k3(rollout, columns["old"]), rows, len(batch.samples))
            self.figures |= _trained_figures(columns)
            if "routing" in columns:
                self.figures |= _routing_figures(columns["routing"], self.fed_tokens)
        self.figures |= self._figures_of_all(batch, trained, columns, num_neutral_tokens, policy_version)

    def _figures_of_all(
        self,
        batch: Batch,
        trained: NDArray[np.int64],
        columns: dict[str, Tensor],
        num_neutral_tokens: int,
        policy_version: int,
    ) -> dict[str, float]:
        """What is said of every token of the step: each trained one counts once, the watched ones for all others."""
        watched = _joined([tokens for tokens, _, _ in self._watched])
        tokens = np.concatenate([trained, watched])
        if not len(tokens):
            return {"scored_tokens": 0.0}
        none = [torch.zeros(0)]
        old = torch.cat([columns.get("old", none[0]), *([part for _, part, _ in self._watched] or none)])
        entropies = torch.cat([columns.get("entropy", none[0]), *([part for _, _, part in self._watched] or none)])
        each = torch.ones(len(tokens), dtype=torch.float64)
        each[len(trained) :] = num_neutral_tokens / max(len(watched), 1)
        rollout = torch.from_numpy(batch.rollout_logprobs[tokens])
        fresh = torch.from_numpy(batch.token_versions[tokens] == policy_version)
        entropy = float(torch.dot(each, entropies.double()) / each.sum())
        return {"scored_tokens": float(len(watched)), "entropy": entropy} | stop_conditions.mismatch_metrics(
            old, rollout, fresh, each
        )

    def _gather(self, ranks: Ranks) -> None:
        """Bring everything to the host, of all ranks: the figures, and what they stop, are the same on each."""
        columns = {name: [value.cpu() for value in values] for name, values in self._columns.items()}
        # Tensors and plain values alone travel between ranks.
        trained = [torch.from_numpy(tokens) for tokens in self._tokens]
        watched = [(torch.from_numpy(tokens), old.cpu(), entropies.cpu()) for tokens, old, entropies in self._watched]
        parts = ranks.gather((self.fed_tokens, [loss.cpu() for loss in self._losses], columns, trained, watched))
        self.fed_tokens = sum(fed for fed, _, _, _, _ in parts)
        self._losses = [loss for _, losses, _, _, _ in parts for loss in losses]
        names = {name: None for _, _, columns, _, _ in parts for name in columns}
        self._columns = {name: [value for _, _, c, _, _ in parts for value in c.get(name, [])] for name in names}
        self._tokens = [tokens.numpy() for _, _, _, some, _ in parts for tokens in some]
        self._watched = [
            (tokens.numpy(), old, entropies) for _, _, _, _, some in parts for tokens, old, entropies in some
        ]


def _trained_figures(columns: dict[str, Tensor]) -> dict[str, float]:
    """What is said of the tokens that gave a gradient, and of no other."""
    figures = {
        "clip_fraction": float(columns["clipped"].mean()),
        "correction_mean": float(columns["correction"].mean()),
        "ratio_mean": float(torch.exp((columns["policy"] - columns["old"]).clamp(-20, 20)).mean()),
    }
    if "kl" in columns:
        figures["kl_reference"] = float(columns["kl"].mean())
    return figures


def _routing_figures(counts: Tensor, fed_tokens: int) -> dict[str, float]:
    """counts: [m, 3] of the step's micro-batches, see `Replay.counts`."""
    recorded, pairs, differing = counts.sum(0).tolist()
    return {"routing_differs": differing / max(pairs, 1), "routing_unknown": 1 - recorded / max(fed_tokens, 1)}


TRAINED_ALONE = frozenset(
    {"clip_fraction", "correction_mean", "ratio_mean", "kl_reference", "routing_differs", "routing_unknown"}
)
"""Figures of the tokens that gave a gradient."""
OF_THE_STEP = frozenset({"loss", "grad_norm", "nonfinite_logprobs", "fresh_tokens"})
"""Figures of an optimizer step as a whole; the others are means over its tokens."""


def of_update(advantages: NDArray[np.float64], records: Sequence[StepRecord], rate: float) -> dict[str, float]:
    """The update's figures: of those of a token the mean over the tokens of all its optimizer steps, of the largest
    the largest, else the mean over the steps. What the batch says of itself, whatever is learnt from it, is the control
    plane's to compute (services/loop/batch_metrics.py)."""
    names = sorted({name for record in records for name in record.figures})
    figures = {name: _over_steps(name, records) for name in names}
    figures["fed_tokens"] = float(sum(record.fed_tokens for record in records))
    figures["scored_tokens"] = float(sum(record.figures["scored_tokens"] for record in records))
    figures["learning_rate"] = rate
    if len(advantages):
        figures["advantage_abs_mean"] = float(np.abs(advantages).mean())
    return figures


def _over_steps(name: str, records: Sequence[StepRecord]) -> float:
    known = [record for record in records if name in record.figures]
    values = [record.figures[name] for record in known]
    if "_max" in name:
        return float(np.max(values))
    if name in OF_THE_STEP:
        return float(np.mean(values))
    if name in TRAINED_ALONE:
        return float(np.average(values, weights=[record.trained_tokens for record in known]))
    return float(np.average(values, weights=[max(record.num_tokens, 1) for record in known]))


def warnings_of(batch: Batch, advantages: NDArray[np.float64], records: Sequence[StepRecord]) -> tuple[str, ...]:
    """Each warning once, in the order in which they arose."""
    warnings = [warning for record in records for warning in record.warnings]
    if not len(batch.samples):
        warnings.append(
            "no completion of this batch has a verdict: nothing was learnt; rayzero samples RUN --status error says why"
        )
    elif not any(record.grad_norm for record in records):
        what = (
            "every token of this batch that has an advantage is masked, rejected or clipped: nothing was learnt"
            if advantages.any()
            else "all rewards are equal within every group of this batch: nothing was learnt from it"
            + ("" if any(record.trained_tokens for record in records) else ", and the loss was not computed")
        )
        has_moved = any(record.is_by_momentum for record in records)
        warnings.append(what + ("; momentum alone moved the weights" if has_moved else ""))
    return tuple(dict.fromkeys(warnings))


def kl_by_group(groups: Sequence[Group], records: Sequence[StepRecord]) -> dict[int, tuple[float, ...]]:
    """Each completion's k3-KL between sampler and learner, for `UpdateResult.rollout_kl`."""
    if not records:
        return {}
    of_samples = records[0].kl_rollout
    for record in records[1:]:  # the steps of one epoch have other samples, those of another epoch the same figures
        of_samples = np.where(np.isnan(of_samples), record.kl_rollout, of_samples)
    values = iter(of_samples.tolist())
    return {
        group.group_id: tuple(np.nan if rollout.verdict.is_error else next(values) for rollout in group.rollouts)
        for group in groups
    }


def kl_per_sample(batch: Batch, policy: Tensor, reference: Tensor, estimator: str) -> NDArray[np.float64]:
    """[S] KL(policy || reference) of each completion, summed over its tokens. policy and reference [N]."""
    values = KL_ESTIMATORS[estimator](policy.double(), reference.double()).numpy()
    sums = np.bincount(batch.token_rows, weights=values, minlength=len(batch.samples))
    return np.asarray(sums, dtype=np.float64)


def _means_by_row(values: Tensor, rows: NDArray[np.int64], num_rows: int) -> NDArray[np.float64]:
    counts = np.bincount(rows, minlength=num_rows)
    sums = np.bincount(rows, weights=values.double().numpy(), minlength=num_rows)
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(num_rows, np.nan), where=counts > 0)
    return means


def _joined(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
