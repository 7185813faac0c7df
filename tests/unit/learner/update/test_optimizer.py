"""The rate's schedule in numbers, AdamW on masters against torch's own, clipping, accumulation in fp32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rayzero.learner.model.policy import Policy
from rayzero.learner.update.optimizer import MasterOptimizer, learning_rate
from rayzero.services.schema.config.learner import ComputeSettings, OptimizerSettings


def rates(num_updates: int, **changes: object) -> list[float]:
    settings = OptimizerSettings.model_validate({"learning_rate": 1.0, **changes})
    return [learning_rate(update, num_updates, settings) for update in range(num_updates)]


def test_schedule_hand_computed() -> None:
    assert rates(3) == [1, 1, 1]
    assert rates(4, warmup_updates=2) == [0.5, 1, 1, 1]
    assert rates(5, decay="linear") == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert rates(5, decay="linear", floor=0.2) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert rates(5, decay="cosine") == pytest.approx([1, 0.8535534, 0.5, 0.1464466, 0])
    assert rates(7, decay="cosine", warmup_updates=2, floor=0.1)[2:] == pytest.approx(
        [1, 0.8681981, 0.55, 0.2318019, 0.1]
    )


def test_schedule_edges() -> None:
    assert rates(1, decay="linear") == [1]
    settings = OptimizerSettings(learning_rate=1.0, decay="linear", floor=0.1)
    assert learning_rate(99, 10, settings) == pytest.approx(0.1)
    assert rates(2, warmup_updates=5) == [0.2, 0.4]


def test_an_optimizer_on_the_host_makes_the_same_steps(tiny_model: Path) -> None:
    weights = []
    for offload in (False, True):
        policy = Policy(tiny_model, dtype="bfloat16", compute=ComputeSettings(offload_optimizer=offload))
        optimizer = MasterOptimizer(policy, OptimizerSettings(learning_rate=1e-2))
        for seed in range(2):
            set_gradients(policy, seed)
            optimizer.step(1e-2, optimizer.grad_norm())
        assert {master.device.type for master in policy.masters.values()} == {"cpu"}
        weights.append(torch.cat([weight.flatten() for _, weight in policy.named_weights()]))
    assert torch.equal(*weights)


def set_gradients(policy: Policy, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    loss = sum(
        (parameter * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)).sum()
        for _, parameter in policy.named_parameters()
    )
    loss.backward()  # type: ignore[union-attr]


def test_steps_as_torch_does_in_fp32(tiny_model: Path) -> None:
    policy, other = Policy(tiny_model, dtype="float32"), Policy(tiny_model, dtype="float32")
    ours = MasterOptimizer(policy, OptimizerSettings(max_grad_norm=1e9, betas=(0.9, 0.98)))
    theirs = torch.optim.AdamW([p for _, p in other.named_parameters()], lr=1e-2, betas=(0.9, 0.98), weight_decay=0.0)
    for seed in range(3):
        set_gradients(policy, seed)
        set_gradients(other, seed)
        ours.step(1e-2, ours.grad_norm())
        theirs.step()
        theirs.zero_grad()
    for (_, mine), (_, reference) in zip(policy.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(mine, reference)


def test_masters_keep_what_bf16_would_lose(tiny_model: Path) -> None:
    """Steps of 1e-5 on weights of order 1 vanish in bf16 one by one; a hundred of them must not."""
    policy = Policy(tiny_model, dtype="bfloat16")
    optimizer = MasterOptimizer(policy, OptimizerSettings(max_grad_norm=1e9))
    name, parameter = next((n, p) for n, p in policy.named_parameters() if n.endswith("norm.weight"))
    before, master = parameter.detach().clone(), policy.masters[name].clone()
    for _ in range(100):
        parameter.sum().backward()
        optimizer.step(1e-4, optimizer.grad_norm())
    moved = master - policy.masters[name]
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-2), rtol=1e-2, atol=0)
    assert (parameter != before).any()
    torch.testing.assert_close(parameter.detach(), policy.masters[name].to(torch.bfloat16))


def test_a_model_in_bf16_computes_with_all_of_a_small_step(tiny_model: Path) -> None:
    """Published weights stand on bfloat16's grid. A first step is far smaller than its spacing: to the nearest, the
    model that samples and is trained would stay what it was."""
    policy = Policy(tiny_model, dtype="bfloat16")
    optimizer = MasterOptimizer(policy, OptimizerSettings(max_grad_norm=1e9))
    name, parameter = next((n, p) for n, p in policy.named_parameters() if n.endswith("embed_tokens.weight"))
    start = parameter.detach().float()
    with torch.no_grad():
        policy.masters[name].copy_(start)
    set_gradients(policy, 0)
    optimizer.step(1e-5, optimizer.grad_norm())
    step, computed = policy.masters[name] - start, parameter.detach().float() - start
    assert (computed @ step.T).trace().item() == pytest.approx((step @ step.T).trace().item(), rel=0.3)
    nearest = policy.masters[name].bfloat16().float() - start
    assert (nearest @ step.T).trace().abs() < 0.2 * (step @ step.T).trace()
    resumed = Policy(tiny_model, dtype="bfloat16")
    MasterOptimizer(resumed, OptimizerSettings()).load_state_dict(optimizer.state_dict(torch.clone))
    for (_, sent), (_, again) in zip(policy.sent_weights(), resumed.sent_weights(), strict=True):
        assert torch.equal(sent, again)


def test_gradients_add_up_in_fp32(tiny_model: Path) -> None:
    policy = Policy(tiny_model, dtype="bfloat16")
    MasterOptimizer(policy, OptimizerSettings())
    name, parameter = next((n, p) for n, p in policy.named_parameters() if n.endswith("norm.weight"))
    for scale in (1.0, 2**-10):
        (parameter * scale).sum().backward()
    gradient = policy.masters[name].grad
    assert gradient is not None and gradient.dtype == torch.float32
    assert gradient.flatten()[0].item() == 1.0 + 2**-10
    assert parameter.grad is None


def test_clips_to_the_norm(tiny_model: Path) -> None:
    """With beta1 = 0 and a huge eps AdamW steps along the gradient, so the step shows its length."""
    policy = Policy(tiny_model, dtype="float32")
    optimizer = MasterOptimizer(policy, OptimizerSettings(max_grad_norm=1.0, betas=(0.0, 0.0), eps=1e6))
    before = torch.cat([p.detach().flatten().clone() for _, p in policy.named_parameters()])
    set_gradients(policy, 0)
    norm = optimizer.grad_norm()
    assert norm > 10
    optimizer.step(1e6, norm)
    after = torch.cat([p.detach().flatten() for _, p in policy.named_parameters()])
    assert (after - before).norm().item() == pytest.approx(1.0, rel=1e-2)


def test_weight_decay_spares_vectors(tiny_model: Path) -> None:
    policy = Policy(tiny_model, dtype="float32")
    optimizer = MasterOptimizer(policy, OptimizerSettings(weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    optimizer.step(0.1, 0.0)
    for name, parameter in policy.named_parameters():
        factor = 0.95 if parameter.ndim >= 2 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)
