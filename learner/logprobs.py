"""Log-probabilities and entropies of chosen tokens from hidden states, never a [T, V] tensor at full length.

One autograd function does projection, softmax and gather a chunk of rows at a time, in fp32. The gradient needs the
softmax again: chunks are kept from the forward pass while they fit a fixed budget, and projected again above it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK_BYTES = 64 * 2**20
"""fp32 logits of one chunk."""
_KEEP_BYTES = 256 * 2**20
"""fp32 probabilities kept for the backward pass."""


def token_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float = 1.0, chunk_rows: int = 0
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and the entropy of the distribution it was drawn from.

    hidden [n, h] and weight [V, h] in the compute dtype, targets [n] int64. Logits are hidden @ weight.T / temperature,
    in fp32. Returns (logprobs [n], entropies [n]), fp32 and differentiable; the entropy in nats.
    """
    rows = chunk_rows or max(1, _CHUNK_BYTES // (4 * weight.shape[0]))
    logprobs, entropies = _FusedLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, temperature, rows, torch.is_grad_enabled()
    )
    return logprobs, entropies


class _FusedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, rows: int, keep: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        logprobs = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropies, normalisers = torch.empty_like(logprobs), torch.empty_like(logprobs)
        kept: list[Tensor] = []
        with _projection(weight, temperature) as project:
            for start in range(0, len(hidden), rows):
                chunk = slice(start, start + rows)
                logits = project(hidden[chunk])
                normalisers[chunk] = torch.logsumexp(logits, dim=-1)
                log_probabilities = logits.sub_(normalisers[chunk, None])
                logprobs[chunk] = log_probabilities.gather(1, targets[chunk, None])[:, 0]
                probabilities = torch.exp(log_probabilities)
                entropies[chunk] = -torch.linalg.vecdot(probabilities, log_probabilities)
                if keep and (start + rows) * weight.shape[0] * 4 <= _KEEP_BYTES:
                    kept.append(probabilities)
        ctx.save_for_backward(hidden, weight, targets, normalisers, entropies)
        ctx.kept, ctx.temperature, ctx.rows = kept, temperature, rows
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, normalisers, entropies = ctx.saved_tensors
        grad_hidden = torch.zeros_like(hidden)
        grad_weight: Tensor | None = None
        kept: list[Tensor] = ctx.kept[::-1]
        ctx.kept = []
        with _projection(weight, ctx.temperature, recompute=len(kept) * ctx.rows < len(hidden)) as project:
            for start in range(0, len(hidden), ctx.rows):
                chunk = slice(start, start + ctx.rows)
                rows = hidden[chunk]
                probabilities = kept.pop() if kept else torch.exp(project(rows) - normalisers[chunk, None])
                grad_logits = _grad_logits(
                    probabilities,
                    targets[chunk],
                    entropies[chunk],
                    None if grad is None else grad[chunk] / ctx.temperature,
                    None if grad_entropy is None else grad_entropy[chunk] / ctx.temperature,
                ).to(hidden.dtype)
                torch.mm(grad_logits, weight, out=grad_hidden[chunk])
                part = torch.mm(grad_logits.t(), rows)
                # Chunks add up in fp32: in bf16 the sum of many would lose the small ones.
                grad_weight = part if grad_weight is None else grad_weight.float().add_(part)
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None, None


def _grad_logits(
    probabilities: Tensor, targets: Tensor, entropies: Tensor, grad: Tensor | None, grad_entropy: Tensor | None
) -> Tensor:
    """d loss / d logits [rows, V], written over `probabilities`.

    d logprob / d logits = onehot - p;  d entropy / d logits = -p (log p + entropy).
    """
    entropy_part = None
    if grad_entropy is not None:
        entropy_part = torch.special.entr(probabilities).sub_(probabilities * entropies[:, None])
        entropy_part.mul_(grad_entropy[:, None])
    grad = torch.zeros_like(entropies) if grad is None else grad
    grad_logits = probabilities.mul_(-grad[:, None])
    grad_logits.scatter_add_(1, targets[:, None], grad[:, None])
    return grad_logits if entropy_part is None else grad_logits.add_(entropy_part)


@contextmanager
def _projection(weight: Tensor, temperature: float, recompute: bool = True) -> Iterator[Callable[[Tensor], Tensor]]:
    """A function from hidden [rows, h] to fp32 logits [rows, V] at bf16 speed, where the weights are bf16."""
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and recompute:
        # bf16 x bf16 is exact in fp32: products in bf16 units with an fp32 result, not logits rounded to 8 bits.
        wide, setting = weight.float(), torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        before, setting.fp32_precision = setting.fp32_precision, "bf16"
        try:
            yield lambda rows: _tempered(F.linear(rows.float(), wide), temperature)
        finally:
            setting.fp32_precision = before
    elif weight.device.type == "cuda" and weight.dtype == torch.bfloat16:
        yield lambda rows: _tempered(torch.mm(rows, weight.t(), out_dtype=torch.float32), temperature)
    else:
        yield lambda rows: _tempered(F.linear(rows, weight).float(), temperature)


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1.0 else logits.div_(temperature)
