"""The packed, prompt-sharing forward pass against transformers, one unshared sequence at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rayzero.learner.batch.batching import Microbatch, pack
from rayzero.learner.batch.samples import Batch
from rayzero.learner.model import attention
from rayzero.learner.model.policy import Policy
from rayzero.learner.model.segment_attention import segment_attention, segment_block
from rayzero.services.schema.config.learner import ComputeSettings
from rayzero.services.schema.errors import RecipeError
from tests.unit.learner.kit import naive_logprobs, packed_logprobs


@pytest.mark.parametrize("share_prompts", [True, False])
@pytest.mark.parametrize(("dense_tokens", "num_parts"), [(0, 1), (17, 2), (512, 1), (512, 3)])
def test_packed_equals_one_by_one(
    any_model: Path,
    batch: Batch,
    share_prompts: bool,
    dense_tokens: int,
    num_parts: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "_DENSE_TOKENS", dense_tokens)
    monkeypatch.setattr(attention, "_num_parts", lambda *_: num_parts)
    policy = Policy(any_model, dtype="float32", temperature=0.7)
    microbatches = pack(batch.samples, tokens_per_microbatch=50, share_prompts=share_prompts)
    packed = packed_logprobs(policy, microbatches, batch.num_tokens)
    torch.testing.assert_close(packed, naive_logprobs(any_model, batch, 0.7), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share_prompts", [True, False])
def test_varlen_layout_gives_each_query_its_own_keys(
    batch: Batch, share_prompts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CUDA path with its kernel's definition in place of the kernel, against attention segment by segment."""
    from torch.nn.attention import varlen

    monkeypatch.setattr(varlen, "varlen_attn", slow_varlen)
    (microbatch,) = pack(batch.samples, tokens_per_microbatch=1000, share_prompts=share_prompts)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(len(microbatch.token_ids), heads, 16, generator=generator) for heads in (4, 2, 2))
    cpu = torch.device("cpu")
    segments = [segment for tree in microbatch.trees for segment in attention._segments(tree)]
    expected = segment_attention(q, k, v, 0.3, segment_block(segments, len(q)))
    found = attention._varlen_attention(q, k, v, 0.3, attention._varlen(microbatch.trees, cpu))
    torch.testing.assert_close(found, expected)


def slow_varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """What torch says of `varlen_attn`: one segment after another, causal from the end of the keys."""
    assert (scale, window_size, enable_gqa) == (0.3, (-1, 0), True)
    assert (cu_q.dtype, cu_k.dtype) == (torch.int32, torch.int32)
    assert (max_q, max_k) == (int(cu_q.diff().max()), int(cu_k.diff().max()))
    outputs = []
    for index in range(len(cu_q) - 1):
        own, seen = slice(cu_q[index], cu_q[index + 1]), slice(cu_k[index], cu_k[index + 1])
        keys, values = (x[seen].repeat_interleave(2, dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q[own], keys) * 0.3
        num_q, num_k = scores.shape[1:]
        hidden = torch.ones(num_q, num_k, dtype=torch.bool).triu(num_k - num_q + 1)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values))
    return torch.cat(outputs)


def test_gradients_equal_one_by_one(tiny_model: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.randn(batch.num_tokens, generator=torch.Generator().manual_seed(0))
    gradients = []
    ways = ((512, 1, 1000, True), (512, 2, 1000, True), (17, 2, 1000, True), (0, 1, 1000, True), (512, 1, 40, False))
    for dense_tokens, num_parts, budget, share in ways:
        monkeypatch.setattr(attention, "_DENSE_TOKENS", dense_tokens)
        monkeypatch.setattr(attention, "_num_parts", lambda *_, count=num_parts: count)
        policy = Policy(tiny_model, dtype="float32")
        microbatches = pack(batch.samples, tokens_per_microbatch=budget, share_prompts=share)
        torch.dot(packed_logprobs(policy, microbatches, batch.num_tokens), weights).backward()
        gradients.append(torch.cat([p.grad.flatten() for _, p in policy.named_parameters() if p.grad is not None]))
    for gradient in gradients[1:]:
        assert (gradient - gradients[0]).norm() <= 1e-5 * gradients[0].norm()


@pytest.mark.parametrize(("dense_tokens", "num_parts"), [(0, 1), (512, 1), (512, 2)])
def test_poison_in_one_completion_reaches_no_other(
    tiny_model: Path, batch: Batch, dense_tokens: int, num_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_DENSE_TOKENS", dense_tokens)
    monkeypatch.setattr(attention, "_num_parts", lambda *_: num_parts)
    policy = Policy(tiny_model, dtype="float32")
    (microbatch,) = pack(batch.samples, tokens_per_microbatch=1000)
    poisoned_row = 3
    tokens = microbatch.token_ids.copy()
    victim = microbatch.predictors[microbatch.rows[microbatch.token_samples] == poisoned_row][1:]
    tokens[victim] = (tokens[victim] + 17) % 61
    with torch.no_grad():
        before = policy.logprobs(microbatch)[0]
        after = policy.logprobs(
            Microbatch(**{name: getattr(microbatch, name) for name in microbatch.__slots__} | {"token_ids": tokens})
        )[0]
    others = torch.from_numpy(microbatch.rows[microbatch.token_samples] != poisoned_row)
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[~others], after[~others])


def test_checkpointing_and_bf16_change_rounding_only(tiny_model: Path, batch: Batch) -> None:
    exact = naive_logprobs(tiny_model, batch)
    microbatches = pack(batch.samples, tokens_per_microbatch=1000)
    checkpointing = Policy(tiny_model, dtype="float32", compute=ComputeSettings(activation_checkpointing=True))
    out = packed_logprobs(checkpointing, microbatches, batch.num_tokens)
    torch.testing.assert_close(out, exact, rtol=1e-4, atol=1e-5)
    out.sum().backward()
    assert all(p.grad is not None for _, p in checkpointing.named_parameters())
    bf16 = packed_logprobs(Policy(tiny_model, dtype="bfloat16"), microbatches, batch.num_tokens)
    assert (bf16 - exact).abs().mean() < 0.03


def test_saved_model_loads_as_it_is(any_model: Path, tmp_path: Path, batch: Batch) -> None:
    policy = Policy(any_model, dtype="float32")
    with torch.no_grad():
        for _, parameter in policy.named_parameters():
            parameter.add_(0.01)
    policy.save(tmp_path / "saved")
    expected = packed_logprobs(policy, pack(batch.samples, tokens_per_microbatch=1000), batch.num_tokens)
    torch.testing.assert_close(naive_logprobs(tmp_path / "saved", batch), expected, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "saved" / "tokenizer_config.json").is_file()


def test_weights_are_named_as_the_engine_loads_them(any_model: Path) -> None:
    policy = Policy(any_model, dtype="bfloat16")
    weights = dict(policy.named_weights())
    assert "model.layers.1.mlp.down_proj.weight" in weights
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert ("lm_head.weight" in weights) == (not policy.model.config.tie_word_embeddings)


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"model\.path.*config\.json"):
        Policy(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(RecipeError, match=r"model\.path"):
        Policy(tmp_path)


@pytest.mark.parametrize(
    "sampling",
    [
        {"do_sample": False, "temperature": 0.6, "top_p": 0.9, "eos_token_id": 2},
        {"temperature": 0.6},
        {"num_return_sequences": 4},
        {"early_stopping": "sometimes"},
    ],
)
def test_a_generation_config_that_transformers_refuses_costs_no_checkpoint(
    any_model: Path, tmp_path: Path, sampling: dict[str, object]
) -> None:
    model, saved = tmp_path / "model", tmp_path / "saved"
    shutil.copytree(any_model, model)
    (model / "generation_config.json").write_text(json.dumps(sampling))
    Policy(model, dtype="float32").save(saved)
    assert json.loads((saved / "generation_config.json").read_text()) == sampling
    assert (saved / "model.safetensors").is_file()


def test_a_model_without_a_generation_config_keeps_its_end_of_text(any_model: Path, tmp_path: Path) -> None:
    model, saved = tmp_path / "model", tmp_path / "saved"
    shutil.copytree(any_model, model)
    (model / "generation_config.json").unlink()
    policy = Policy(model, dtype="float32")
    policy.save(saved)
    ends = json.loads((saved / "generation_config.json").read_text()).get("eos_token_id")
    assert ends == policy.model.config.eos_token_id
