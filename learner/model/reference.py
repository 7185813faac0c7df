"""What the KL term pulls towards: a frozen copy of the policy, its adapters of then, or another model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from rayzero.learner.model.ranks import shard_like
from rayzero.learner.model.token_scorer import DeviceBatch, TokenScorer


class Reference(Protocol):
    """Scores tokens without gradient, and goes with a checkpoint."""

    def keep(self) -> None:
        """Become the policy of now."""

    def logprobs(self, batch: DeviceBatch, temperature: float) -> Tensor:
        """[n] log-probabilities at `temperature`."""

    def state(self, keep: Callable[[Tensor], Any]) -> dict[str, Any] | None:
        """What a checkpoint must hold of it, by parameter name: what `keep` makes of each weight."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore it."""


class WeightCopy:
    """A second model of the policy's layout."""

    def __init__(self, policy: TokenScorer, copy: TokenScorer) -> None:
        """`copy` is frozen; its weights are taken from `policy` by `keep`."""
        self._policy, self.scorer = policy, copy

    @torch.no_grad()
    def keep(self) -> None:
        """See `Reference`."""
        for mine, kept in zip(self._policy.model.parameters(), self.scorer.model.parameters(), strict=True):
            kept.copy_(mine)

    def logprobs(self, batch: DeviceBatch, temperature: float) -> Tensor:
        """See `Reference`."""
        return _logprobs(self.scorer, batch, temperature)

    def state(self, keep: Callable[[Tensor], Any]) -> dict[str, Any] | None:
        """See `Reference`."""
        return {name: keep(weight) for name, weight in self.scorer.model.named_parameters()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Reference`."""
        for name, weight in self.scorer.model.named_parameters():
            weight.copy_(shard_like(state[name], weight))


class AdapterCopy:
    """The policy's own model with the adapters of then: the rest of it is frozen, so a second one would be the same."""

    def __init__(self, policy: TokenScorer) -> None:
        self._policy = policy
        self._live = {name: p for name, p in policy.model.named_parameters() if p.requires_grad}
        self._kept = {name: adapter.detach().clone() for name, adapter in self._live.items()}

    @torch.no_grad()
    def keep(self) -> None:
        """See `Reference`."""
        for name, adapter in self._live.items():
            self._kept[name].copy_(adapter)

    def logprobs(self, batch: DeviceBatch, temperature: float) -> Tensor:
        """See `Reference`. Not between a forward pass of the policy and its backward pass: its weights are exchanged
        for the time being."""
        with self._exchanged():
            return _logprobs(self._policy, batch, temperature)

    def state(self, keep: Callable[[Tensor], Any]) -> dict[str, Any] | None:
        """See `Reference`."""
        return {name: keep(adapter) for name, adapter in self._kept.items()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Reference`."""
        for name, adapter in self._kept.items():
            adapter.copy_(shard_like(state[name], adapter))

    @contextmanager
    @torch.no_grad()
    def _exchanged(self) -> Iterator[None]:
        live, kept = [_local(each) for each in self._live.values()], [_local(each) for each in self._kept.values()]
        now = [each.clone() for each in live]
        torch._foreach_copy_(live, kept)  # a launch for all of them, not one each
        try:
            yield
        finally:
            torch._foreach_copy_(live, now)


class OtherModel:
    """A model of its own, read from disk; it is not the policy's, and does not change."""

    def __init__(self, scorer: TokenScorer) -> None:
        self.scorer = scorer

    def keep(self) -> None:
        """See `Reference`: it stays."""

    def logprobs(self, batch: DeviceBatch, temperature: float) -> Tensor:
        """See `Reference`."""
        return _logprobs(self.scorer, batch, temperature)

    def state(self, keep: Callable[[Tensor], Any]) -> dict[str, Any] | None:
        """See `Reference`: it is read from disk again."""
        return None

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Reference`: there is none."""


@torch.no_grad()
def _logprobs(scorer: TokenScorer, batch: DeviceBatch, temperature: float) -> Tensor:
    logprobs: Tensor = scorer(batch, temperature)[0]
    return logprobs


def _local(tensor: Tensor) -> Tensor:
    """The memory itself: of a sharded tensor, this rank's part."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()
