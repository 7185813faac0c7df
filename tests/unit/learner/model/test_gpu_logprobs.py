"""The GPU's kernels of the head, run by Triton's interpreter on the CPU, against autograd through log_softmax.

Triton comes with torch for CUDA: where that is not installed the same is tested by tests/gpu alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton comes with torch for CUDA")

SCALE = 1.0 / 0.7
DEADLINE_S = 120.0


def statistics(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and normalisers, by the kernel."""
    from rayzero.learner.model import gpu_logprobs as head

    head._BLOCK = 16  # several blocks a row, the last one not full
    found = torch.full((3, len(targets)), float("nan"))
    head.row_statistics(logits, targets, SCALE, found[0], found[1], found[2])
    return found[0], found[1], found[2]


def errors(logits: Tensor, targets: Tensor, grads: tuple[Tensor, Tensor] | None) -> Tensor:
    """The errors, by the kernel; with `grads`, of log-probabilities and entropies, the whole gradient."""
    from rayzero.learner.model import gpu_logprobs as head

    logprobs, entropies, normalisers = statistics(logits, targets)
    entropy_part = None if grads is None else (entropies, *grads)
    return head.row_errors(logits, targets, SCALE, logprobs, normalisers, entropy_part).clone()


@pytest.fixture(scope="module")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """A process of its own: Triton asks for the variable once, when it is first imported."""
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        patch.setenv("TRITON_INTERPRET", "1")
        yield pool


def rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits [7, 61], of which one is sure of its target; targets; log-probabilities and entropies, differentiable."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 61, generator=generator) * 4
    targets = torch.randint(0, 61, (7,), generator=generator)
    logits[3, targets[3]] = 40.0
    logits.requires_grad_()
    log_p = torch.log_softmax(logits * SCALE, -1)
    return logits, targets, log_p.gather(1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def test_statistics_of_a_row(interpreter: ProcessPoolExecutor) -> None:
    logits, targets, logprobs, entropies = rows()
    found = interpreter.submit(statistics, logits.detach(), targets).result(DEADLINE_S)
    expected = (logprobs, entropies, torch.logsumexp(logits * SCALE, -1))
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, reference.detach(), rtol=1e-5, atol=1e-5)


def test_errors_times_the_rows_gradient_are_the_gradient(interpreter: ProcessPoolExecutor) -> None:
    logits, targets, logprobs, _ = rows()
    a = torch.linspace(-2, 2, len(targets))
    (expected,) = torch.autograd.grad(logprobs @ a, logits)
    found = interpreter.submit(errors, logits.detach(), targets, None).result(DEADLINE_S)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float() * (-a * SCALE)[:, None], expected, rtol=8e-3, atol=1e-6)
    assert abs(float(found[3, targets[3]])) < 1e-6, "a sure token's error is not rounded up to its probability's"


def test_errors_with_an_entropy_term_are_the_whole_gradient(interpreter: ProcessPoolExecutor) -> None:
    logits, targets, logprobs, entropies = rows()
    a, b = torch.linspace(-2, 2, len(targets)), torch.linspace(3, -1, len(targets))
    (expected,) = torch.autograd.grad(logprobs @ a + entropies @ b, logits)
    found = interpreter.submit(errors, logits.detach(), targets, (a, b)).result(DEADLINE_S)
    torch.testing.assert_close(found.float() * SCALE, expected, rtol=8e-3, atol=1e-4)
