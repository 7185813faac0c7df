"""A causal language model as its directory holds it, proven before it is trained: our forward pass against its own.

What this project computes beside the model's code is packing, attention and the head. A model whose code does something
else there (a window, a soft cap, a factor on the logits) would be trained on other log-probabilities than the engines
sample from; services/planning/model_families.py knows of those by name, and the comparison finds the ones that it does
not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from rayzero.learner.batch.batching import Microbatch, lay_out
from rayzero.learner.batch.pieces import whole_piece
from rayzero.learner.batch.samples import TrainingSample
from rayzero.learner.model.attention import ATTENTION_NAME
from rayzero.learner.model.rank_loading import build_without_memory
from rayzero.learner.model.token_scorer import TokenScorer, to_device
from rayzero.services.schema.errors import RecipeError

TOLERANCE = 5e-3
"""Largest gap of a log-probability, in nats. Both sides compute in fp32 and differ by 1e-6 to 1e-4, the latter where a
deep model is fed random tokens; a factor or a cap that is left out makes tenths."""
PROVEN_LAYERS = 8
"""Of a model that is too large to be read by one rank: no family's layers take turns over more."""
_PROMPT_LENGTHS = (3, 7, 7)
_LENGTH = 13
"""Tokens of each compared sequence, its prompt included: 39 in all."""


def load_model(path: Path, *, key: str = "model.path", proven: bool = True) -> Any:
    """The model of a directory in Hugging Face format, in fp32 on the host. `proven`: compared with its own code; `key`
    is the recipe's, for errors.

    Raises:
        RecipeError: it cannot be loaded, or the learner would compute something else than it does.
    """
    model = _supported(path, key, lambda: _read(path))
    if proven:
        prove(model, key)
    return model


def load_outline(path: Path, *, key: str = "model.path", proven: bool = True) -> Any:
    """The same without its weights: for ranks that read their own parts of them. `proven`: its first layers are.

    Raises:
        RecipeError: as `load_model`.
    """
    model = _supported(path, key, lambda: build_without_memory(path))
    if proven:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        kinds = getattr(config, "layer_types", None)
        config.num_hidden_layers = min(config.num_hidden_layers, PROVEN_LAYERS)
        if kinds:
            config.layer_types = kinds[: config.num_hidden_layers]
        prove(_supported(path, key, lambda: _read(path, config=config)), key)
    return model


def _read(path: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, local_files_only=True, generation_config=GenerationConfig(), **options
    )


def _supported(path: Path, key: str, load: Callable[[], Any]) -> Any:
    if not (path / "config.json").is_file():
        raise RecipeError(f"{key}: {path} holds no config.json: give a directory in Hugging Face format")
    try:
        model = load()
    except (OSError, ValueError) as error:
        raise RecipeError(f"{key}: {path} cannot be loaded: {error}") from error
    inner = getattr(model, "model", None)
    if not hasattr(model, "lm_head") or not hasattr(inner, "layers"):
        raise RecipeError(f"{key}: {type(model).__name__} is not supported: docs/models.md lists what is")
    model.generation_config = _ends_alone(model.config)
    return model


def _ends_alone(config: Any) -> GenerationConfig:
    """The model's special tokens, and no way of sampling: transformers loads a generation_config.json that has a
    temperature without do_sample, and cannot save it. A checkpoint has that file as it was (Policy.save)."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return GenerationConfig(**{name: getattr(config, name, None) for name in names})


@torch.no_grad()
def prove(model: Any, key: str = "model.path") -> None:
    """Hold our log-probabilities of some random tokens, packed as in training, against the model's own.

    Raises:
        RecipeError: names the model's type and the largest gap.
    """
    kind, own = model.config.model_type, model.config._attn_implementation
    samples = _samples(model.config.vocab_size)
    expected = torch.cat(list(_own_logprobs(model, samples)))
    try:
        model.set_attn_implementation(ATTENTION_NAME)
        found = _packed_logprobs(TokenScorer(model, head_chunk_tokens=0), _packed(samples))
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise RecipeError(
            f"{key}: {kind} models are not supported, the learner's attention does not fit their code "
            f"({type(error).__name__}: {error}): docs/models.md lists those that are"
        ) from error
    finally:
        model.set_attn_implementation(own)
    gap = float((found - expected).abs().max())
    if not gap <= TOLERANCE:  # NaN is refused, too
        raise RecipeError(
            f"{key}: {kind} models are not supported, the learner's log-probabilities differ from the model's own "
            f"by up to {gap:.2g}: docs/models.md lists those that are"
        )


def _samples(vocab_size: int) -> list[TrainingSample]:
    """Two prompts, the longer one with two completions: every kind of segment that packing makes."""
    rng = np.random.default_rng(0)
    prompts = {length: rng.integers(0, vocab_size, length).astype(np.int32) for length in _PROMPT_LENGTHS}
    samples, start = [], 0
    for row, length in enumerate(_PROMPT_LENGTHS):
        ids = rng.integers(0, vocab_size, _LENGTH - length).astype(np.int32)
        prompt = prompts[length]
        samples.append(TrainingSample(row=row, group=length, prompt_token_ids=prompt, token_ids=ids, start=start))
        start += len(ids)
    return samples


def _packed(samples: list[TrainingSample]) -> Microbatch:
    groups = sorted(set(_PROMPT_LENGTHS))
    return lay_out([[whole_piece(each) for each in samples if each.group == group] for group in groups])


def _own_logprobs(model: Any, samples: list[TrainingSample]) -> list[Tensor]:
    """[T] each, by the model's own forward pass on whole sequences, one a row."""
    rows = np.stack([np.concatenate([each.prompt_token_ids, each.token_ids]) for each in samples])
    tokens = torch.from_numpy(rows.astype(np.int64))
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
    logprobs = logits.log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
    return [row[-each.num_tokens :] for row, each in zip(logprobs, samples, strict=True)]


def _packed_logprobs(scorer: TokenScorer, microbatch: Microbatch) -> Tensor:
    """[N] in the samples' order, by the code that trains."""
    logprobs: Tensor = scorer(to_device(microbatch, torch.device("cpu")), 1.0)[0]
    out = torch.empty_like(logprobs)
    out[torch.from_numpy(microbatch.batch_tokens)] = logprobs
    return out
