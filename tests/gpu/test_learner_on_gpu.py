"""The learner on a GPU gives what it gives on a CPU: attention, head, updates, the optimizer on the host."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rayzero.learner.batch.batching import pack
from rayzero.learner.batch.samples import make_batch
from rayzero.learner.model import attention
from rayzero.learner.model.logprobs import token_logprobs
from rayzero.learner.model.policy import Policy
from rayzero.learner.model.segment_attention import segment_attention
from rayzero.learner.update.learner import Learner
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.messages import Group
from tests.models import build_tiny_model
from tests.unit.learner.episodes import episode_group
from tests.unit.learner.kit import make_group

pytestmark = [pytest.mark.gpu, pytest.mark.cuda_only]

CUDA = torch.device("cuda")
QUIET = {"kl_warn": 1e9, "kl_stop": 1e9, "ess_warn": 0, "ess_stop": 0}


def groups(seed: int = 0) -> list[Group]:
    rng = np.random.default_rng(seed)
    return [
        make_group(rng, [70, 10, 0, 120], [1, 0, 0, 1], prompt_length=90),
        make_group(rng, [40, 4], [1, 0], prompt_length=1, group_id=1),
        make_group(rng, [300, 20, 110], [1, 0, 1], prompt_length=200, group_id=2),
    ]


def test_varlen_attention_and_its_gradients_are_those_of_the_segments() -> None:
    nested = episode_group(np.random.default_rng(0), [0.0] * 6, group_id=3, prompt_length=40)
    (microbatch,) = pack(make_batch([*groups(), nested]).samples, tokens_per_microbatch=10_000, share_prompts=True)
    assert any(tree.forks for tree in microbatch.trees)
    layout = attention.build_layout(microbatch.trees, CUDA)
    assert layout.varlen is not None
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(0)
        shapes = [(len(microbatch.token_ids), heads, 64) for heads in (8, 2, 2)]
        q, k, v = (torch.randn(shape, device=CUDA).bfloat16().to(dtype).requires_grad_() for shape in shapes)
        if dtype == torch.bfloat16:
            out = attention._varlen_attention(q, k, v, 0.125, layout.varlen)
        else:
            assert layout.segments is not None
            out = segment_attention(q, k, v, 0.125, layout.segments)
        torch.autograd.backward(out, torch.ones_like(out))
        results.append([out, *(x.grad for x in (q, k, v))])
    for found, expected in zip(*results, strict=True):
        assert found is not None and expected is not None
        assert (found.float() - expected).norm() <= 2e-2 * expected.norm()


def test_head_gives_fp32_logits_at_bf16_precision_of_its_inputs() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(300, 256).bfloat16(), torch.randn(5000, 256).bfloat16()
    targets = torch.randint(0, 5000, (300,))
    exact = torch.log_softmax(hidden.float() @ weight.float().t(), -1).gather(1, targets[:, None])[:, 0]
    found, _ = token_logprobs(hidden.to(CUDA), weight.to(CUDA), targets.to(CUDA))
    torch.testing.assert_close(found.cpu(), exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("with_entropy", [False, True])
def test_gradient_of_the_head_is_that_of_the_whole_softmax(temperature: float, with_entropy: bool) -> None:
    torch.manual_seed(0)
    hidden = (torch.randn(300, 256) / 4).bfloat16().to(CUDA).requires_grad_()
    weight = (torch.randn(5003, 256) / 4).bfloat16().to(CUDA).requires_grad_()  # a width that no tile divides
    targets = torch.randint(0, 5003, (300,), device=CUDA)
    a, b = torch.randn(2, 300, device=CUDA)
    found = token_logprobs(hidden, weight, targets, temperature=temperature, chunk_rows=128)
    wide = [each.detach().double().requires_grad_() for each in (hidden, weight)]
    log_p = torch.log_softmax(wide[0] @ wide[1].t() / temperature, -1)
    expected = log_p.gather(1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value.double(), wanted, rtol=1e-4, atol=1e-3)
    b = b if with_entropy else torch.zeros_like(b)
    mine = torch.autograd.grad(found[0] @ a + (found[1] @ b if with_entropy else 0), (hidden, weight))
    reference = torch.autograd.grad(expected[0] @ a.double() + expected[1] @ b.double(), wide)
    for one, other in zip(mine, reference, strict=True):
        assert (one.double() - other).norm() <= 5e-3 * other.norm()


def test_micro_batches_of_any_layout_are_compiled_once(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    path = build_tiny_model(tmp_path, hidden_size=128, head_dim=64)
    learner = Learner(
        Policy(path, dtype="bfloat16", device="cuda"),
        LearnerSettings.model_validate({"watch": QUIET}),
        num_updates=10,
        max_completion_tokens=512,
    )
    made = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(1, 200, 2 + 3 * seed).tolist()
        rewards = [row % 2 for row in range(len(lengths))]
        learner.update([make_group(rng, lengths, rewards, prompt_length=20 + seed)], seed + 1)
        made.append(counters["stats"]["unique_graphs"])
    assert made[0] > 0 and made[1] == made[-1], f"compiled graphs after each update: {made}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_update_on_the_gpu_is_the_cpus(tmp_path: Path, dtype: str) -> None:
    path = build_tiny_model(tmp_path, hidden_size=128, head_dim=64)
    settings = LearnerSettings.model_validate({"watch": QUIET, "optimizer": {"learning_rate": 1e-3}})
    moved = {}
    for device in ("cpu", "cuda"):
        policy = Policy(path, dtype=dtype, device=device)
        before = flat(policy)
        learner = Learner(policy, settings, num_updates=10, max_completion_tokens=512)
        result = learner.update(groups(), 1)
        moved[device] = (flat(policy) - before, result.metrics["grad_norm"])
    tolerance = 1e-3 if dtype == "float32" else 5e-2
    assert moved["cuda"][1] == pytest.approx(moved["cpu"][1], rel=tolerance)
    cosine = torch.nn.functional.cosine_similarity(moved["cuda"][0], moved["cpu"][0], dim=0)
    assert cosine > 1 - 5 * tolerance


def test_an_optimizer_on_the_host_makes_the_gpus_steps(tmp_path: Path) -> None:
    path = build_tiny_model(tmp_path, hidden_size=128, head_dim=64)
    weights = []
    for offload in (False, True):
        settings = LearnerSettings.model_validate({
            "watch": QUIET, "optimizer": {"learning_rate": 1e-3}, "compute": {"offload_optimizer": offload},
        })  # fmt: skip
        policy = Policy(path, dtype="bfloat16", device="cuda", compute=settings.compute)
        learner = Learner(policy, settings, num_updates=10, max_completion_tokens=512)
        for version in (1, 2):
            learner.update(groups(version), version)
        weights.append(flat(policy))
    assert (weights[0] - weights[1]).abs().max() <= 2e-2 * weights[0].abs().max()


def flat(policy: Policy) -> torch.Tensor:
    return torch.cat([weight.float().flatten().cpu() for _, weight in policy.named_weights()])
