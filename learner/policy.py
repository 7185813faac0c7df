"""The language model being trained: a transformers causal LM with tree attention and a fused head.

In bfloat16 the model computes on a bf16 working copy; the fp32 master weights are the optimizer's
(learner/optimizer.py). In float32 the model's own parameters are the masters.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from learner.attention import ATTENTION_NAME, AttentionLayout, build_layout
from learner.batching import Microbatch
from learner.logprobs import token_logprobs
from learner.lora import inject, merged_weights
from services.schema.config.learner import ComputeSettings, LoraSettings
from services.schema.errors import RecipeError

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "vocab.json", "merges.txt",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """A micro-batch as tensors on the policy's device, with its attention layout."""

    token_ids: Tensor
    position_ids: Tensor
    predictors: Tensor
    targets: Tensor
    layout: AttentionLayout


class Policy:
    """Weights, forward pass and saving. It does not know losses or optimizers."""

    def __init__(
        self,
        path: str | Path,
        *,
        dtype: str = "bfloat16",
        device: str = "cpu",
        temperature: float = 1.0,
        compute: ComputeSettings | None = None,
        lora: LoraSettings | None = None,
        seed: int = 0,
    ) -> None:
        """Load a directory in Hugging Face format. Raises RecipeError when it cannot be trained, naming the cause."""
        self.path = Path(path)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.device = torch.device(device)
        self.temperature = temperature
        self.compute = compute or ComputeSettings()
        self.model = _load(self.path)
        self._has_adapters = lora is not None
        if lora is not None:
            inject(self.model, lora, seed)
        self.masters: dict[str, Tensor] = {}
        self._split_masters()
        self.model.to(self.device)
        self._set_mode()
        self._reference: PreTrainedModel | None = None

    def logprobs(self, microbatch: Microbatch, temperature: float | None = None) -> tuple[Tensor, Tensor]:
        """(log-probabilities [n], entropies [n]) of the micro-batch's completion tokens, fp32, differentiable.

        Of the sampling distribution: at the policy's temperature, unless another is given.
        """
        return self._logprobs(self.model, self._on_device(microbatch), temperature or self.temperature)

    @torch.no_grad()
    def reference_logprobs(self, microbatch: Microbatch) -> Tensor:
        """[n] under the reference policy. Needs `keep_reference` first."""
        if self._reference is None:
            raise RuntimeError("no reference policy is held: call keep_reference first")
        return self._logprobs(self._reference, self._on_device(microbatch), self.temperature)[0]

    def keep_reference(self) -> None:
        """Make the policy of now the reference."""
        if self._reference is None:
            self._reference = copy.deepcopy(self.model).requires_grad_(False).eval()
        else:
            self._reference.load_state_dict(self.model.state_dict())

    @property
    def pair_cost(self) -> float:
        """Cost of one (query, key) pair of attention in tokens' worth of matrix products (for balancing)."""
        layer_params = sum(p.numel() for p in self.model.model.layers[0].parameters())
        config = self.model.config
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return float(2 * config.num_attention_heads * head_size / layer_params)

    @property
    def num_parameters(self) -> int:
        """Parameters, a tied embedding counted once, adapters included."""
        return sum(p.numel() for p in self.model.parameters())

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Trained parameters; a tied embedding comes once."""
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Weights as the engine loads them: Hugging Face names, compute dtype, adapters merged, no tied head."""
        if self._has_adapters:
            return merged_weights(self.model)
        return ((name, p.detach()) for name, p in self.model.named_parameters())

    def save(self, directory: str | Path) -> None:
        """Write a Hugging Face directory, tokenizer included, that `from_pretrained` and vLLM load as they are."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(directory, state_dict=dict(self.named_weights()))
        for name in _TOKENIZER_FILES:
            if (self.path / name).is_file():
                shutil.copyfile(self.path / name, directory / name)

    def reference_state(self) -> dict[str, Tensor] | None:
        """The reference's weights for a checkpoint, or none."""
        return None if self._reference is None else dict(self._reference.state_dict())

    def load_reference_state(self, state: dict[str, Tensor] | None) -> None:
        """Restore what `reference_state` gave."""
        if state is not None:
            self.keep_reference()
            assert self._reference is not None
            self._reference.load_state_dict(state)

    def _logprobs(self, model: PreTrainedModel, batch: DeviceBatch, temperature: float) -> tuple[Tensor, Tensor]:
        hidden = model.model(
            input_ids=batch.token_ids[None],
            position_ids=batch.position_ids[None],
            use_cache=False,
            layout=batch.layout,
        ).last_hidden_state[0]
        return token_logprobs(
            hidden.index_select(0, batch.predictors),
            model.lm_head.weight,
            batch.targets,
            temperature=temperature,
            chunk_rows=self.compute.head_chunk_tokens,
        )

    def _on_device(self, microbatch: Microbatch) -> DeviceBatch:
        def tensor(array: Any) -> Tensor:
            return torch.from_numpy(array).to(self.device, non_blocking=True)

        return DeviceBatch(
            token_ids=tensor(microbatch.token_ids),
            position_ids=tensor(microbatch.position_ids),
            predictors=tensor(microbatch.predictors),
            targets=tensor(microbatch.targets),
            layout=build_layout(microbatch.trees, self.device),
        )

    def _split_masters(self) -> None:
        """fp32 masters aside, compute dtype in the model. Buffers stay fp32: rotary frequencies in bf16 are wrong."""
        for name, parameter in self.model.named_parameters():
            if self.dtype == torch.float32:
                continue
            if parameter.requires_grad:
                self.masters[name] = parameter.detach().to(self.device, torch.float32, copy=True)
            parameter.data = parameter.data.to(self.dtype)
        self.model.config.dtype = self.dtype

    def _set_mode(self) -> None:
        self.model.set_attn_implementation(ATTENTION_NAME)
        if self.compute.activation_checkpointing:
            self.model.train()
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            self.model.eval()
        if self.compute.compile:
            for layer in self.model.model.layers:
                layer.compile(dynamic=True)


def _load(path: Path) -> PreTrainedModel:
    if not (path / "config.json").is_file():
        raise RecipeError(f"model.path: {path} holds no config.json: give a directory in Hugging Face format")
    config = json.loads((path / "config.json").read_text())
    if config.get("use_sliding_window") or "sliding_attention" in (config.get("layer_types") or ()):
        raise RecipeError(f"model.path: {path} uses sliding-window attention, which the learner does not support")
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError) as error:
        raise RecipeError(f"model.path: {path} cannot be loaded: {error}") from error
    if not hasattr(model, "lm_head") or not hasattr(model, "model"):
        raise RecipeError(f"model.path: {type(model).__name__} is not supported: train a Llama, Qwen2 or Qwen3 model")
    return model
