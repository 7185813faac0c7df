"""Every expert has its own name and shape in what is sent and saved, and what is loaded from it is the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rayzero.learner.batch.batching import pack
from rayzero.learner.batch.samples import make_batch
from rayzero.learner.model.experts import active_parameters, is_mixture, parts_of
from rayzero.learner.model.policy import Policy
from rayzero.services.schema.config.learner import ComputeSettings, LoraSettings
from rayzero.services.schema.errors import RecipeError
from tests.unit.learner.kit import build_model, naive_logprobs, packed_logprobs, some_groups

MIXTURES = ["mixtral", "qwen3_moe"]


def test_experts_of_a_layer_are_named_one_by_one() -> None:
    parts = parts_of("mixtral", "model.layers.3.mlp.experts.gate_up_proj", torch.Size((2, 8, 5)))
    assert [part.name.removeprefix("model.layers.3.block_sparse_moe.experts.") for part in parts] == [
        "0.w1.weight", "0.w3.weight", "1.w1.weight", "1.w3.weight",
    ]  # fmt: skip
    whole = torch.arange(80.0).view(2, 8, 5)
    assert {part.shape for part in parts} == {torch.Size((4, 5))}
    assert torch.equal(parts[3].of(whole), whole[1, 4:])
    (down, _) = parts_of("qwen3_moe", "model.layers.0.mlp.experts.down_proj", torch.Size((2, 5, 4)))
    assert (down.name, down.shape) == ("model.layers.0.mlp.experts.0.down_proj.weight", torch.Size((5, 4)))


def test_everything_else_keeps_its_shape_and_the_name_of_its_family() -> None:
    for kind, name, expected in (
        ("mixtral", "model.layers.0.mlp.gate.weight", "model.layers.0.block_sparse_moe.gate.weight"),
        ("mixtral", "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.weight"),
        ("qwen3_moe", "model.layers.0.mlp.gate.weight", "model.layers.0.mlp.gate.weight"),
        ("llama", "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.gate_proj.weight"),
    ):
        (part,) = parts_of(kind, name, torch.Size((4, 5)))
        assert (part.name, part.shape, part.expert) == (expected, torch.Size((4, 5)), None)
        assert is_mixture(kind) == (kind != "llama")


@pytest.mark.parametrize("architecture", MIXTURES)
def test_what_is_sent_and_saved_is_the_checkpoint_tensor_by_tensor(architecture: str, tmp_path: Path) -> None:
    path = build_model(tmp_path / "model", architecture)
    policy, expected = Policy(path, dtype="float32"), load_file(path / "model.safetensors")
    sent = dict(policy.sent_weights())
    assert sent.keys() == expected.keys()
    assert all(torch.equal(sent[name], tensor) for name, tensor in expected.items())
    assert policy.sent_outline() == [(name, tensor.shape) for name, tensor in policy.sent_weights()]
    with torch.no_grad():
        for _, parameter in policy.named_parameters():
            parameter.add_(torch.randn_like(parameter))
    policy.save(tmp_path / "saved")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    for (name, mine), (other, theirs) in zip(policy.named_parameters(), found.named_parameters(), strict=True):
        assert name == other and torch.equal(mine, theirs), name


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("architecture", MIXTURES)
def test_routers_and_experts_get_the_gradient_of_the_model_s_own_code(
    architecture: str, recomputed: bool, tmp_path: Path
) -> None:
    """In float64 over there, one expert after the other; a router takes its softmax in fp32 there, too."""
    path = build_model(tmp_path, architecture)
    batch = make_batch(some_groups())
    policy = Policy(path, dtype="float32", compute=ComputeSettings(activation_checkpointing=recomputed))
    found = packed_logprobs(policy, pack(batch.samples, tokens_per_microbatch=40), batch.num_tokens)
    weights = torch.randn(batch.num_tokens, generator=torch.Generator().manual_seed(0))
    (found * weights).sum().backward()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, experts_implementation="eager")
    expected = naive_logprobs(path, batch, model=model)
    torch.testing.assert_close(found.detach().double(), expected.detach(), rtol=1e-4, atol=1e-5)
    (expected * weights).sum().backward()
    own = dict(model.named_parameters())
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None and own[name].grad is not None, name
        scale = float(own[name].grad.abs().max())
        gap = float((parameter.grad.double() - own[name].grad).abs().max())
        assert gap < 1e-3 * scale, f"{name}: {gap} of {scale}"


def test_a_token_is_multiplied_by_the_experts_that_it_is_sent_to(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(build_model(tmp_path, "qwen3_moe"))
    layer = model.model.layers[0]
    experts = sum(each.numel() for each in layer.mlp.experts.parameters())
    others = sum(each.numel() for each in layer.parameters()) - experts
    assert active_parameters(layer, model.config) == others + experts * 2 / 5


@pytest.mark.parametrize("architecture", MIXTURES)
def test_adapters_on_a_mixture_are_refused(architecture: str, tmp_path: Path) -> None:
    path = build_model(tmp_path, architecture)
    with pytest.raises(RecipeError, match=r"learner\.lora: .* is a mixture of experts, trained whole: leave it out"):
        Policy(path, dtype="float32", lora=LoraSettings(rank=2, alpha=4))
