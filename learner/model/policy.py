"""The language model being trained: weights, forward pass, reference and saving.

In bfloat16 the model computes on a bf16 working copy; the fp32 master weights are the optimizer's
(learner/update/optimizer.py). In float32, and where ranks shard the model, its own parameters are the masters.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rayzero.learner.batch.batching import Microbatch
from rayzero.learner.model.attention import ATTENTION_NAME
from rayzero.learner.model.experts import Part, active_parameters, is_mixture, parts_of
from rayzero.learner.model.lora import (
    adapter_shapes,
    adapters,
    base_shapes,
    inject,
    merged_weights,
    peft_weights,
    write_peft,
)
from rayzero.learner.model.pretrained import load_model, load_outline
from rayzero.learner.model.rank_loading import ShardReader
from rayzero.learner.model.ranks import ONE_RANK, Ranks, full
from rayzero.learner.model.reference import AdapterCopy, OtherModel, Reference, WeightCopy
from rayzero.learner.model.rounded_shard import rounded_like
from rayzero.learner.model.rounding import rounded
from rayzero.learner.model.routing_replay import Replay
from rayzero.learner.model.saving import save_weights
from rayzero.learner.model.token_scorer import TokenScorer, to_device
from rayzero.services.schema.config.learner import ComputeSettings, LoraSettings
from rayzero.services.schema.errors import RecipeError

ADAPTER_FOLDER = "adapter"
"""In a saved directory: the adapters alone, for those who have the base model."""
_COPIED_FILES = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "vocab.json", "merges.txt",
)  # fmt: skip


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
        ranks: Ranks = ONE_RANK,
        reference_path: str | Path | None = None,
        routing_replay: bool = False,
    ) -> None:
        """Load a directory in Hugging Face format. Raises RecipeError when it cannot be trained, naming the cause.

        `reference_path` names another model as the reference; else it is the policy when `keep_reference` is called.
        `routing_replay`: tokens of a mixture go to the experts that are recorded for them, the policy's and those of a
        reference that is a copy of it.
        """
        self.path = Path(path)
        self._reference_path = None if reference_path is None else Path(reference_path)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.device = torch.device(device)
        self.temperature = temperature
        self.compute = compute or ComputeSettings()
        self.ranks = ranks
        self.masters: dict[str, Tensor] = {}
        """fp32 weights by parameter name; empty where the parameters are fp32 themselves."""
        self._lora, self._seed, self._replays = lora, seed, routing_replay
        # Once is enough, and all ranks of a node reading all weights for it would take longer.
        self._scorer = self._build(proven=ranks.rank == 0)
        self.model = self._scorer.model
        self._pair_cost = _pair_cost(self.model)
        self._num_parameters = int(sum(p.numel() for p in self.model.parameters()))
        self._split_masters(self.model)
        self._shard(self._scorer, self.path)
        self._reference: Reference | None = None

    def logprobs(self, microbatch: Microbatch, temperature: float | None = None) -> tuple[Tensor, Tensor]:
        """(log-probabilities [n], entropies [n]) of the micro-batch's completion tokens, fp32, differentiable.

        Of the sampling distribution: at the policy's temperature, unless another is given.
        """
        scores: tuple[Tensor, Tensor] = self._scorer(
            to_device(microbatch, self.device), temperature or self.temperature
        )
        return scores

    @property
    def replayed(self) -> Replay | None:
        """Which experts were replayed in the last `logprobs`; None: none were."""
        return self._scorer.replayed

    def reference_logprobs(self, microbatch: Microbatch) -> Tensor:
        """[n] under the reference policy, without gradient. Needs `keep_reference` first."""
        if self._reference is None:
            raise RuntimeError("no reference policy is held: call keep_reference first")
        return self._reference.logprobs(to_device(microbatch, self.device), self.temperature)

    def keep_reference(self) -> None:
        """Make the policy of now the reference; a reference of its own is loaded once and stays."""
        if self._reference is None:
            self._reference = self._new_reference()
        self._reference.keep()

    @property
    def pair_cost(self) -> float:
        """Cost of one (query, key) pair of attention in tokens' worth of matrix products (for balancing)."""
        return self._pair_cost

    @property
    def num_parameters(self) -> int:
        """Parameters, a tied embedding counted once, adapters included."""
        return self._num_parameters

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Trained parameters; a tied embedding comes once."""
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    def computed(self, master: Tensor) -> Tensor:
        """What the model computes with, and sends, for a trained parameter in fp32: same shape, in its dtype."""
        return rounded(master, self.dtype) if self._is_by_thresholds else master.to(self.dtype)

    @property
    def _is_by_thresholds(self) -> bool:
        # Adapters do not begin on bfloat16's grid, as published weights do: to the nearest nothing is lost on average.
        return self.dtype == torch.bfloat16 and self._lora is None

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Weights as the engine loads them: Hugging Face names, compute dtype, adapters merged, no tied head.

        Where ranks shard the model all of them must go through it.
        """
        if self._lora is not None:
            return merged_weights(self.model, self.dtype, self._lora.scaling)
        return self._whole_weights()

    @property
    def adapter_scaling(self) -> float | None:
        """alpha / rank where `sent_weights` are adapters alone, else None.

        Engines add them to the model at `path`, from which they started, too. Whatever made a policy's frozen weights
        others than those would have to say None here, and have `sent_weights` send them all.
        """
        return None if self._lora is None else self._lora.scaling

    def sent_weights(self) -> Iterator[tuple[str, Tensor]]:
        """What a sync sends: the adapters where there are some, for nothing else is ever trained; else all weights.

        Where ranks shard the model all of them must go through it.
        """
        return self.named_weights() if self.adapter_scaling is None else adapters(self.model, self.dtype)

    def sent_outline(self) -> list[tuple[str, torch.Size]]:
        """Names and whole shapes of `sent_weights`, in its order. Puts nothing together: any rank may ask alone."""
        if self.adapter_scaling is not None:
            return adapter_shapes(self.model)
        return self._outline()

    def _outline(self) -> list[tuple[str, torch.Size]]:
        """Names and whole shapes of `named_weights`, in its order."""
        if self._lora is not None:
            return base_shapes(self.model)
        return [
            (part.name, part.shape)
            for name, weight in self.model.named_parameters()
            for part in self._parts(name, weight)
        ]

    def _whole_weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in self.model.named_parameters():
            # Cast before they are put together: fp32 shards would be twice the bytes on the wire and in memory.
            whole = full(rounded_like(weight.detach(), self.dtype))
            parts = [(part.name, part.of(whole)) for part in self._parts(name, weight)]
            del whole  # the last part lets go of it: the next parameter may be as large
            while parts:
                yield parts.pop(0)

    def _parts(self, name: str, weight: Tensor) -> list[Part]:
        """What a parameter is in a checkpoint: all experts of a layer are one here, and each has its own name there."""
        return parts_of(self.model.config.model_type, name, weight.shape)

    def save(self, directory: str | Path) -> None:
        """Write a Hugging Face directory that `from_pretrained` and vLLM load as they are, tokenizer included."""
        directory, writes = Path(directory), self.ranks.rank == 0
        if writes:
            directory.mkdir(parents=True, exist_ok=True)
        # What transformers makes of names is for its own: those of experts are in the checkpoint's form already.
        alone_saved = self.ranks.mesh is None and not is_mixture(self.model.config.model_type)
        if alone_saved:
            self.model.save_pretrained(directory, state_dict=dict(self.named_weights()))
        else:
            # One whole tensor at a time on a GPU, and a file's at a time on the host: it may be too large for either.
            save_weights(self.named_weights(), self._outline(), self.dtype, directory, writes=writes)
        alone = {} if self._lora is None else dict(peft_weights(self.model, self.dtype))
        if not writes:
            return
        if self._lora is not None:
            write_peft(directory / ADAPTER_FOLDER, alone, self._lora, self.path)
        if not alone_saved:
            self.model.config.architectures = [type(self.model).__name__]
            self.model.config.save_pretrained(directory)
            self.model.generation_config.save_pretrained(directory)
        for name in _COPIED_FILES:
            if (self.path / name).is_file():
                shutil.copyfile(self.path / name, directory / name)

    def reference_state(self, keep: Callable[[Tensor], Any]) -> dict[str, Any] | None:
        """What a checkpoint must hold of the reference: nothing where there is none, or where it is read from disk.
        `keep` takes each weight in turn, and says what stands in its place."""
        return None if self._reference is None else self._reference.state(keep)

    def load_reference_state(self, state: dict[str, Tensor] | None) -> None:
        """Restore what `reference_state` gave, the weights in place; on ranks other than 0 their shapes are enough."""
        if state is None:
            return
        self.keep_reference()
        assert self._reference is not None
        self._reference.load_state(state)

    def _build(self, *, proven: bool) -> TokenScorer:
        model = self._load(self.path, "model.path", proven=proven)
        if self._lora is not None:
            inject(model, self._lora, self._seed)
        model.config.dtype = self.dtype
        model.eval()
        if self.compute.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            for layer in model.model.layers:
                # transformers recomputes layers in training alone. What is in them stays as it is: some families have
                # dropout there, and would train on other log-probabilities.
                layer.training = True
        scorer = self._scorer_of(model)
        if self._replays:
            scorer.replay_routing()
        return scorer

    def _load(self, path: Path, key: str, *, proven: bool) -> Any:
        """The model of a directory, in fp32; without memory where every rank will read its own part of the weights."""
        if self.ranks.mesh is not None and self._lora is None:
            model = load_outline(path, key=key, proven=proven)
            if self._reader(path).reads(model):
                return model
        return load_model(path, key=key, proven=proven)

    def _reader(self, path: Path) -> ShardReader:
        return ShardReader(path, self.ranks.rank, self.ranks.world_size, self.device)

    def _scorer_of(self, model: Any) -> TokenScorer:
        model.set_attn_implementation(ATTENTION_NAME)
        if any(parameter.is_meta for parameter in model.parameters()):
            for module in model.modules():
                for name, buffer in module._buffers.items():
                    module._buffers[name] = buffer if buffer is None else buffer.to(self.device)
        else:
            model = model.to(self.device)
        return self._compiled(TokenScorer(model, self.compute.head_chunk_tokens))

    def _compiled(self, scorer: TokenScorer) -> TokenScorer:
        # Not of experts: how many tokens each computes changes with every micro-batch.
        pays = self.device.type == "cuda" and not is_mixture(scorer.model.config.model_type)
        if pays if self.compute.compile is None else self.compute.compile:
            scorer.compile_layers()
        return scorer

    def _split_masters(self, model: Any) -> None:
        """fp32 masters aside, compute dtype in the model. Buffers stay fp32: rotary frequencies in bf16 are wrong."""
        if self.dtype == torch.float32 or self.ranks.mesh is not None:
            return
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                # On the host where the optimizer is: nothing of it but the bf16 copy stays on the GPU.
                where = "cpu" if self.compute.offload_optimizer else self.device
                self.masters[name] = parameter.detach().to(where, copy=True)
                parameter.data = self.computed(parameter.data)
            else:
                parameter.data = parameter.data.to(self.dtype)

    def _shard(self, scorer: TokenScorer, path: Path) -> None:
        """`path`: of the weights that are read now, where the model is without memory."""
        if self.ranks.mesh is None:
            return
        model, fill = scorer.model, None
        if any(parameter.is_meta for parameter in model.parameters()):
            reader = self._reader(path)
            reader.reads(model)
            fill = reader.fill
        parts = list(model.model.layers)
        if model.lm_head.weight is not model.get_input_embeddings().weight:
            parts.append(model.get_input_embeddings())  # the head alone is large enough to put together
        self.ranks.shard(scorer, parts, self.dtype, fill, by_thresholds=self._is_by_thresholds)

    def _new_reference(self) -> Reference:
        if self._reference_path is not None:
            return OtherModel(self._other_model(self._reference_path))
        if self._lora is not None:
            return AdapterCopy(self._scorer)
        return WeightCopy(self._scorer, self._frozen_copy())

    def _frozen_copy(self) -> TokenScorer:
        """A scorer of the same layout, its weights yet to be copied."""
        if self.ranks.mesh is None:
            # A copied module is not compiled, whatever its original was.
            return self._compiled(copy.deepcopy(self._scorer).requires_grad_(False).eval())
        # What FSDP has wrapped cannot be copied: load and shard once more.
        reference = self._build(proven=False)
        self._shard(reference, self.path)  # frozen after that: what is trained is rounded as the policy's is
        return reference.requires_grad_(False).eval()

    def _other_model(self, path: Path) -> TokenScorer:
        """Another model, frozen, in the compute dtype: it needs no masters."""
        model = self._load(path, "learner.kl.reference", proven=self.ranks.rank == 0)
        vocabulary = self.model.config.vocab_size
        if model.config.vocab_size != vocabulary:
            raise RecipeError(
                f"learner.kl.reference: {path} has {model.config.vocab_size} tokens and the policy {vocabulary}: name "
                "a reference with the policy's tokenizer"
            )
        if self.ranks.mesh is None:
            # Parameter by parameter: rotary frequencies, which are buffers, stay fp32.
            for parameter in model.parameters():
                parameter.data = parameter.data.to(self.dtype)
        scorer = self._scorer_of(model).requires_grad_(False).eval()
        self._shard(scorer, path)
        return scorer


def _pair_cost(model: Any) -> float:
    config = model.config
    layer_parameters = active_parameters(model.model.layers[0], config)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return float(2 * config.num_attention_heads * head_size / layer_parameters)
