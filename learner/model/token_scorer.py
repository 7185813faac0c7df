"""Packed tokens in, log-probabilities and entropies of completion tokens out: one forward pass of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rayzero.learner.batch.batching import Microbatch
from rayzero.learner.model.attention import AttentionLayout, build_layout
from rayzero.learner.model.logprobs import token_logprobs
from rayzero.learner.model.routing_replay import Replay, check_fits, replay_in


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """A micro-batch as tensors on the policy's device, with its attention layout."""

    token_ids: Tensor
    position_ids: Tensor
    predictors: Tensor
    targets: Tensor
    layout: AttentionLayout
    routed_experts: Tensor | None = None


def to_device(microbatch: Microbatch, device: torch.device) -> DeviceBatch:
    """Copy a micro-batch over and lay its attention out."""

    def tensor(array: Any) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return DeviceBatch(
        token_ids=tensor(microbatch.token_ids),
        position_ids=tensor(microbatch.position_ids),
        predictors=tensor(microbatch.predictors),
        targets=tensor(microbatch.targets),
        layout=build_layout(microbatch.trees, device),
        routed_experts=None if microbatch.routed_experts is None else tensor(microbatch.routed_experts),
    )


class TokenScorer(nn.Module):
    """A causal language model with the fused head. A module, so that all it touches is sharded as one."""

    def __init__(self, model: Any, head_chunk_tokens: int) -> None:
        super().__init__()
        self.model = model
        self._chunk_rows = head_chunk_tokens
        self._logit_scale = logit_scale(model.config)
        self._replays = False
        self.replayed: Replay | None = None
        """What the last forward pass replayed; None: each token went its own way."""

    def replay_routing(self) -> None:
        """From now on, tokens of a mixture go to the experts that are recorded for them. Before anything is sharded."""
        replay_in(self.model)
        self._replays = True

    def compile_layers(self) -> None:
        """torch.compile of each decoder layer, once for micro-batches of any layout. Before anything is sharded: what
        FSDP adds to a layer stays outside its graph."""
        for layer in self.model.model.layers:
            layer.compile(dynamic=True)

    def forward(self, batch: DeviceBatch, temperature: float) -> tuple[Tensor, Tensor]:
        """(log-probabilities [n], entropies [n]), fp32, of the distribution at `temperature`."""
        replayed: dict[str, Any] = {}
        if self._replays:
            check_fits(batch.routed_experts, self.model.config)
            self.replayed = Replay(batch.routed_experts)
            replayed = {"replay": self.replayed}
        hidden = self.model.model(
            input_ids=batch.token_ids[None],
            position_ids=batch.position_ids[None],
            use_cache=False,
            layout=batch.layout,
            **replayed,
        ).last_hidden_state[0]
        return token_logprobs(
            hidden.index_select(0, batch.predictors),
            self.model.lm_head.weight,
            batch.targets,
            temperature=temperature / self._logit_scale,
            chunk_rows=self._chunk_rows,
        )


def logit_scale(config: Any) -> float:
    """What the model's own code multiplies its logits with."""
    if config.model_type == "granite":
        return float(1.0 / config.logits_scaling)
    if config.model_type in {"cohere", "cohere2"}:
        return float(config.logit_scale)
    return 1.0
