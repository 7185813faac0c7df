"""The fused head against log_softmax over the whole [T, V], and what it holds in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rayzero.learner.model import logprobs as head
from rayzero.learner.model.logprobs import token_logprobs


def naive(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logprobs = torch.log_softmax(hidden @ weight.t() / temperature, -1)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


def leaves(dtype: torch.dtype = torch.float64, rows: int = 23) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, 8, generator=generator, dtype=torch.float64)
    weight = torch.randn(31, 8, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 31, (rows,), generator=generator)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


@pytest.mark.parametrize("chunk_rows", [0, 1, 5, 100])
@pytest.mark.parametrize("keep_bytes", [0, 31 * 4 * 10, 2**30])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_equals_the_naive_head(
    chunk_rows: int, keep_bytes: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "_KEEP_BYTES", keep_bytes)
    hidden, weight, targets = leaves(torch.float32)
    a, b = torch.randn(2, len(hidden), generator=torch.Generator().manual_seed(1))
    ours = token_logprobs(hidden, weight, targets, temperature=temperature, chunk_rows=chunk_rows)
    theirs = naive(hidden, weight, targets, temperature)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)
    gradients = [
        torch.autograd.grad(torch.dot(a, logprobs) + torch.dot(b, entropies), (hidden, weight))
        for logprobs, entropies in (ours, theirs)
    ]
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_gradient_of_log_probabilities_alone() -> None:
    hidden, weight, targets = leaves(torch.float32)
    ours = torch.autograd.grad(token_logprobs(hidden, weight, targets)[0].sum(), (hidden, weight))
    theirs = torch.autograd.grad(naive(hidden, weight, targets, 1.0)[0].sum(), (hidden, weight))
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_bf16_weights_give_fp32_logits() -> None:
    """Rounding logits to bf16 would err by up to 2^-9 of their size; the products themselves are exact."""
    hidden, weight, targets = leaves(torch.bfloat16, rows=64)
    ours, _ = token_logprobs(hidden.detach() * 4, weight.detach() * 4, targets)
    exact, _ = naive(hidden.detach().double() * 4, weight.detach().double() * 4, targets, 1.0)
    assert (ours - exact).abs().max() < 1e-3


def test_no_rows_are_no_error() -> None:
    hidden, weight, targets = leaves(torch.float32, rows=0)
    logprobs, entropies = token_logprobs(hidden, weight, targets)
    (logprobs.sum() + entropies.sum()).backward()
    assert len(logprobs) == 0


class LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.largest = max(self.largest, out.numel())
        return out


def test_never_a_full_length_logits_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_KEEP_BYTES", 0)
    rows, vocabulary = 512, 1000
    hidden = torch.randn(rows, 4, requires_grad=True)
    weight = torch.randn(vocabulary, 4, requires_grad=True)
    with LargestTensor() as mode:
        logprobs, _ = token_logprobs(hidden, weight, torch.zeros(rows, dtype=torch.int64), chunk_rows=16)
        logprobs.sum().backward()
    assert mode.largest <= 16 * vocabulary


def test_default_chunks_bound_the_memory() -> None:
    """At 32k tokens and 152k words: chunk, softmax and gradient beside what is kept stay under half a gigabyte."""
    rows = max(1, head._CHUNK_BYTES // (4 * 152_000))
    assert 3 * rows * 152_000 * 4 + head._KEEP_BYTES <= 2**29
