"""Rollout Routing Replay (R3, https://arxiv.org/abs/2510.11370): in the learner's forward pass each token goes to the
experts that the engine sent it to.

    router logits ─► softmax ─► own choice, top k  ╳
                        └────► those recorded ─► normalised as the model does it ─► gate weights

The choice has no gradient, the gate weights have theirs: routers are trained as ever. A token for which nothing is
recorded goes where the learner's own router sends it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rayzero.learner.batch.routing import UNKNOWN


@dataclass(slots=True)
class Replay:
    """Of one forward pass."""

    experts: Tensor | None
    """[T, L, K] `UNKNOWN` where nothing is recorded; None: nothing is."""
    differs: dict[int, Tensor] = field(default_factory=dict)
    """By layer: [T] whether the learner would have chosen others. Kept by layer, not summed: a layer that is recomputed
    in the backward pass would be counted twice."""

    def counts(self) -> Tensor:
        """[3]: tokens that are recorded, pairs of one and a layer, and those pairs that differ."""
        if self.experts is None:
            return torch.zeros(3, dtype=torch.int64)
        recorded = (self.experts[:, 0, 0] != UNKNOWN).sum()
        differing = torch.stack([each.sum() for each in self.differs.values()]).sum()
        return torch.stack([recorded, recorded * len(self.differs), differing])


def replay_in(model: Any) -> None:
    """Have each decoder layer of a mixture take a `Replay` as its argument `replay`, and obey it; without one it
    chooses by itself. Call it before anything is sharded."""
    for number, layer in enumerate(model.model.layers):
        layer.register_forward_pre_hook(_hand_over, with_kwargs=True)
        gate = getattr(layer.mlp, "gate", None)
        if gate is not None:  # some families have layers without experts
            gate.replay, gate.replayed_layer = None, number
            gate.register_forward_hook(_choose)


def check_fits(experts: Tensor | None, config: Any) -> None:
    """Raises ValueError where what was recorded is of another model."""
    if experts is None:
        return
    found, expected = tuple(experts.shape[1:]), (config.num_hidden_layers, config.num_experts_per_tok)
    if found != expected:
        raise ValueError(f"recorded routing has (layers, experts a token) {found}, the model {expected}")


def _hand_over(layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Runs inside what is checkpointed: a layer that is recomputed is handed the same."""
    replay = kwargs.pop("replay", None)
    gate: Any = getattr(layer.mlp, "gate", None)
    if gate is not None:
        gate.replay = replay
    return args, kwargs


def _choose(gate: Any, args: Any, output: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    replay: Replay | None = gate.replay
    if replay is None or replay.experts is None:
        return output
    logits, weights, own = output
    recorded = replay.experts[:, gate.replayed_layer].to(own.dtype)
    chosen = torch.where(recorded == UNKNOWN, own, recorded)
    replay.differs[gate.replayed_layer] = (chosen.sort(-1).values != own.sort(-1).values).any(-1)
    picked = logits.softmax(-1, dtype=torch.float).gather(1, chosen)
    if getattr(gate, "norm_topk_prob", True):  # Mixtral's routers have no such switch, and always do
        picked = picked / picked.sum(-1, keepdim=True)
    return logits, picked.to(weights.dtype), chosen
