"""A model whose code computes something that the learner does not is refused when it is loaded, by name and figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from rayzero.learner.batch.batching import pack
from rayzero.learner.batch.samples import Batch
from rayzero.learner.model import pretrained, token_scorer
from rayzero.learner.model.policy import Policy
from rayzero.learner.model.pretrained import load_model
from rayzero.services.schema.config.learner import ComputeSettings
from rayzero.services.schema.errors import RecipeError
from tests.model_families import VARIANTS, build
from tests.unit.learner.kit import naive_logprobs, packed_logprobs


def test_a_factor_on_the_logits_that_is_not_computed_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("granite", VARIANTS["granite"][0], tmp_path)
    load_model(model)
    monkeypatch.setattr(token_scorer, "logit_scale", lambda config: 1.0)
    with pytest.raises(RecipeError, match=r"model\.path: granite models are not supported, .* by up to \d.*models\.md"):
        load_model(model)


@pytest.mark.parametrize(
    ("kind", "variant", "words"),
    [
        ("phi", {}, r"differ from the model's own by up to"),
        ("stablelm", {}, r"does not fit their code .*'layout'"),
        ("gemma2", {"attn_logit_softcapping": 1.0, "final_logit_softcapping": None}, r"capped at 1\.0"),
        ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": 1.0}, r"differ .* by up to"),
        ("mistral", {"sliding_window": 8}, r"window of 8"),
    ],
)
def test_what_no_list_knows_of_is_found(kind: str, variant: Mapping[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=rf"model\.path: {kind} models are not supported, .*{words}"):
        load_model(build(kind, variant, tmp_path))


def test_what_is_not_a_number_is_no_agreement(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "_packed_logprobs", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(RecipeError, match="by up to nan"):
        load_model(tiny_model)


def test_the_comparison_leaves_the_model_as_it_was(any_model: Path) -> None:
    proven, unproven = load_model(any_model), load_model(any_model, proven=False)
    assert proven.config._attn_implementation == unproven.config._attn_implementation
    for one, other in zip(proven.parameters(), unproven.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.requires_grad and one.grad is None


def test_a_sequence_longer_than_the_window_is_an_error(tmp_path: Path, batch: Batch) -> None:
    policy = Policy(build("mistral", {"sliding_window": 20}, tmp_path), dtype="float32")
    with pytest.raises(ValueError, match=r"of 49 tokens .* window of 20"):
        packed_logprobs(policy, pack(batch.samples, tokens_per_microbatch=1000), batch.num_tokens)


def test_recomputed_layers_have_no_dropout(tmp_path: Path, batch: Batch) -> None:
    """transformers recomputes in training mode only, in which some families drop activations."""
    model = build("starcoder2", {"residual_dropout": 0.5, "embedding_dropout": 0.5, "attention_dropout": 0.5}, tmp_path)
    policy = Policy(model, dtype="float32", compute=ComputeSettings(activation_checkpointing=True))
    recomputed = []
    policy.model.model.layers[0].self_attn.register_forward_hook(lambda *_: recomputed.append(True))
    out = packed_logprobs(policy, pack(batch.samples, tokens_per_microbatch=1000), batch.num_tokens)
    torch.testing.assert_close(out, naive_logprobs(model, batch), rtol=1e-4, atol=1e-5)
    out.sum().backward()
    assert len(recomputed) == 2
