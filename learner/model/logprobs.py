"""Log-probabilities and entropies of chosen tokens from hidden states, never a [T, V] tensor at full length.

One autograd function does projection, softmax and gather a chunk of rows at a time, in fp32. The gradient needs the
softmax again: it is kept from the forward pass (in the compute dtype) while it fits a fixed budget, and computed again
above it. On CPU the softmax goes through a chunk in blocks that stay in cache. What is bf16 on a GPU goes through
learner/model/gpu_logprobs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK_BYTES = 64 * 2**20
"""fp32 logits of one chunk: enough rows to keep the matrix product busy."""
_KEEP_BYTES = 256 * 2**20
"""Probabilities kept for the backward pass."""
_BLOCK_BYTES = 2**20
"""fp32 logits of one block: half of a core's L2 cache, so that five passes read memory once."""


def token_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float = 1.0, chunk_rows: int = 0
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and the entropy of the distribution it was drawn from.

    hidden [n, h] and weight [V, h] in the compute dtype, targets [n] int64. Logits are hidden @ weight.T / temperature,
    in fp32. Returns (logprobs [n], entropies [n]), fp32 and differentiable; the entropy in nats.
    """
    if hidden.device.type == "cuda" and hidden.dtype == torch.bfloat16:
        from rayzero.learner.model.gpu_logprobs import gpu_token_logprobs  # Triton comes with torch for CUDA alone

        return gpu_token_logprobs(hidden, weight, targets, temperature, chunk_rows)
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
                fits = (start + rows) * weight.shape[0] * hidden.element_size() <= _KEEP_BYTES
                probabilities = torch.empty_like(logits, dtype=hidden.dtype) if keep and fits else None
                for block in _blocks(logits):
                    part = slice(start + block.start, start + block.stop)
                    logprobs[part], entropies[part], normalisers[part] = _softmax(
                        logits[block], targets[part], None if probabilities is None else probabilities[block]
                    )
                if probabilities is not None:
                    kept.append(probabilities)
        ctx.save_for_backward(hidden, weight, targets, logprobs, entropies, normalisers)
        ctx.kept, ctx.temperature, ctx.rows = kept, temperature, rows
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, logprobs, entropies, normalisers = ctx.saved_tensors
        grad = torch.zeros_like(logprobs) if grad is None else grad / ctx.temperature
        grad_hidden = torch.empty_like(hidden)
        grad_weight: Tensor | None = None
        kept: list[Tensor] = ctx.kept[::-1]
        ctx.kept = []
        with _projection(weight, ctx.temperature, needed=len(kept) * ctx.rows < len(hidden)) as project:
            for start in range(0, len(hidden), ctx.rows):
                chunk = slice(start, start + ctx.rows)
                rows = hidden[chunk]
                errors = kept.pop() if kept else _probabilities(project(rows), normalisers[chunk], hidden.dtype)
                scale = -grad[chunk, None]
                if grad_entropy is None:
                    # d logprob / d logits = onehot - p. p - 1 of the target is exact: a sure token's error is tiny.
                    errors.scatter_(1, targets[chunk, None], torch.expm1(logprobs[chunk, None]).to(errors.dtype))
                else:
                    weights = grad_entropy[chunk, None] / ctx.temperature
                    errors = _grad_logits(errors, targets[chunk], entropies[chunk], -scale, weights)
                    scale = torch.ones_like(scale)
                # The rows' factors go to the small side of both products, never over [rows, V].
                grad_hidden[chunk] = torch.mm(errors, weight).float().mul_(scale)
                part = torch.mm(errors.t(), (rows.float() * scale).to(rows.dtype))
                # Chunks add up in fp32: in bf16 the sum of many would lose the small ones.
                grad_weight = part if grad_weight is None else grad_weight.float().add_(part)
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None, None


def _softmax(logits: Tensor, targets: Tensor, probabilities: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(logprobs, entropies, log of the normaliser) [rows]; overwrites `logits`, fills `probabilities` if given."""
    peak = logits.amax(-1, keepdim=True)
    exponentials = torch.exp(logits.sub_(peak))
    total = exponentials.sum(-1)
    log_total = total.log()
    if probabilities is not None:
        torch.mul(exponentials, (1.0 / total)[:, None], out=probabilities)
    entropies = log_total - torch.linalg.vecdot(exponentials, logits) / total
    return logits.gather(1, targets[:, None])[:, 0] - log_total, entropies, peak[:, 0] + log_total


def _probabilities(logits: Tensor, normalisers: Tensor, dtype: torch.dtype) -> Tensor:
    """Softmax of `logits`, which it overwrites, in `dtype`."""
    for block in _blocks(logits):
        logits[block].sub_(normalisers[block, None]).exp_()
    return logits.to(dtype)


def _grad_logits(probabilities: Tensor, targets: Tensor, entropies: Tensor, grad: Tensor, weights: Tensor) -> Tensor:
    """grad * (onehot - p) - weights * p (log p + entropy) [rows, V]: fp32, rounded at the end."""
    p = probabilities.float()
    entropy_part = torch.special.entr(p).sub_(p * entropies[:, None]).mul_(weights)
    gradient = p.mul_(-grad).scatter_add_(1, targets[:, None], grad).add_(entropy_part)
    return gradient.to(probabilities.dtype)


def _blocks(logits: Tensor) -> list[slice]:
    """Row slices of a chunk: cache-sized on CPU, everything at once elsewhere."""
    rows = max(1, _BLOCK_BYTES // (4 * logits.shape[1])) if logits.device.type == "cpu" else max(len(logits), 1)
    return [slice(start, min(start + rows, len(logits))) for start in range(0, len(logits), rows)]


@contextmanager
def _projection(weight: Tensor, temperature: float, needed: bool = True) -> Iterator[Callable[[Tensor], Tensor]]:
    """A function from hidden [rows, h] to fp32 logits [rows, V] at bf16 speed, where the weights are bf16; in float16
    the products are summed in fp32, too, and never rounded to its 11 bits."""
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and needed:
        # bf16 x bf16 is exact in fp32: products in bf16 units with an fp32 result, not logits rounded to 8 bits.
        wide, setting = weight.float(), torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        before, setting.fp32_precision = setting.fp32_precision, "bf16"
        try:
            yield lambda rows: _tempered(F.linear(rows.float(), wide), temperature)
        finally:
            setting.fp32_precision = before
    elif weight.dtype == torch.float16 and weight.device.type == "cuda":
        yield lambda rows: _tempered(torch.mm(rows, weight.t(), out_dtype=torch.float32), temperature)
    elif weight.dtype == torch.float16 and needed:
        wide = weight.float()
        yield lambda rows: _tempered(F.linear(rows.float(), wide), temperature)
    else:
        yield lambda rows: _tempered(F.linear(rows, weight).float(), temperature)


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1.0 else logits.div_(temperature)
