"""Attention of short completions: parts of trees under one mask each, batched, with a hand-written gradient.

A part is a prompt with some of its completions. Work grows with the square of a part, so a long tree is cheaper in
several, each of which computes the prompt again.

torch's fused CPU attention is several times slower than five matrix products in the backward pass of short sequences,
and gathering rows by autograd would add each gradient row up where copying it is enough: no token is in two parts but
those of a divided tree's prompt, and of one that other prompts begin with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rayzero.learner.batch.tree import Range, Segment


@dataclass(frozen=True, slots=True)
class AttentionPart:
    """A prompt and some of its completions, by their tokens' positions in the micro-batch."""

    prompt: tuple[Range, ...]
    """Where the whole prompt lies."""
    completions: tuple[Segment, ...]
    """Each sees the prompt, or some of it, and others of the part, or some of them."""
    num_given_elsewhere: int
    """The first tokens of the prompt, whose output is another part's: they lie with another tree, or it is divided."""

    @property
    def num_tokens(self) -> int:
        """The prompt's and the completions'."""
        return sum(length for _, length in self.prompt) + sum(each.length for each in self.completions)


@dataclass(frozen=True, slots=True)
class DenseBlock:
    """B parts of similar length, padded to S; m tokens in all, of which n are given out."""

    index: Tensor
    """[B, S] int64 position in the micro-batch; padding repeats the part's first token."""
    rows: Tensor
    """[n] int64 where each token that is given out is in `index`, flattened, in the order of the parts."""
    positions: Tensor
    """[n] int64 position of each in the micro-batch."""
    all_rows: Tensor
    """[m] int64 as `rows`, with what other parts give out."""
    mask: Tensor
    """[B, 1, S, S] float32, 0 where the query may see the key and -inf elsewhere."""


def dense_block(parts: Sequence[AttentionPart]) -> DenseBlock:
    """The block of some parts."""
    length = max(part.num_tokens for part in parts)
    index = torch.stack([_padded_index(part, length) for part in parts])
    ends = [(n * length, n * length + part.num_tokens) for n, part in enumerate(parts)]
    all_rows = torch.cat([torch.arange(start, end) for start, end in ends])
    rows = torch.cat([
        torch.arange(start + part.num_given_elsewhere, end) for (start, end), part in zip(ends, parts, strict=True)
    ])  # fmt: skip
    visible = torch.stack([_visible(part, length) for part in parts])
    mask = torch.zeros(visible.shape).masked_fill_(~visible, float("-inf"))
    return DenseBlock(index, rows, index.view(-1)[rows], all_rows, mask[:, None])


def dense_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, block: DenseBlock) -> Tensor:
    """[n, H, d] for the tokens that the block gives out. q [T, H, d], k and v [T, K, d]; the softmax runs in fp32."""
    out: Tensor = _DenseAttention.apply(q, k, v, scale, block)  # type: ignore[no-untyped-call]
    return out


class _DenseAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, block: DenseBlock) -> Tensor:
        kv_heads = k.shape[1]
        queries, keys, values = (_gather(x, kv_heads, block) for x in (q, k, v))
        scores = torch.bmm(queries, keys.transpose(1, 2)).mul_(scale)
        batch, length = block.index.shape
        scores.view(batch, -1, length, length).add_(block.mask.to(scores.dtype))
        # fp32 inside, rounded to the compute dtype once: what torch does for bf16 input.
        probabilities = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(queries, keys, values, probabilities)
        ctx.block, ctx.scale, ctx.heads, ctx.num_tokens = block, scale, (q.shape[1], kv_heads), len(q)
        return _scatter(torch.bmm(probabilities, values), q.shape[1], block, block.rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        queries, keys, values, probabilities = ctx.saved_tensors
        block, (heads, kv_heads) = ctx.block, ctx.heads
        padded = grad.new_zeros(block.index.numel(), *grad.shape[1:]).index_copy_(0, block.rows, grad)
        grads = _stack_heads(padded, kv_heads, block)
        grad_values = torch.bmm(probabilities.transpose(1, 2), grads)
        grad_probabilities = torch.bmm(grads, values.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_probabilities, probabilities, -1, probabilities.dtype)
        grad_queries = torch.bmm(grad_scores, keys).mul_(ctx.scale)
        grad_keys = torch.bmm(grad_scores.transpose(1, 2), queries).mul_(ctx.scale)
        whole = (
            _to_positions(_scatter(one, count, block, block.all_rows), ctx.num_tokens, block)
            for one, count in ((grad_queries, heads), (grad_keys, kv_heads), (grad_values, kv_heads))
        )
        return *whole, None, None  # type: ignore[return-value]


def _gather(x: Tensor, kv_heads: int, block: DenseBlock) -> Tensor:
    """[T, H, d] -> [B * K, R * S, d], the R = H / K heads of a key head stacked: one product serves them all."""
    return _stack_heads(x.index_select(0, block.index.view(-1)), kv_heads, block)


def _stack_heads(x: Tensor, kv_heads: int, block: DenseBlock) -> Tensor:
    batch, length = block.index.shape
    heads, size = x.shape[1:]
    stacked = x.view(batch, length, heads, size).transpose(1, 2)
    return stacked.reshape(batch * kv_heads, heads // kv_heads * length, size)


def _scatter(x: Tensor, heads: int, block: DenseBlock, rows: Tensor) -> Tensor:
    """[B * K, R * S, d] -> [len(rows), H, d]."""
    batch, length = block.index.shape
    tokens = x.view(batch, heads, length, -1).transpose(1, 2).reshape(batch * length, heads, -1)
    return tokens.index_select(0, rows)


def _to_positions(x: Tensor, num_tokens: int, block: DenseBlock) -> Tensor:
    """[m, H, d] -> [T, H, d], zero where other blocks are, those of a token that is in several parts added up."""
    whole = x.new_zeros(num_tokens, *x.shape[1:])
    if len(block.all_rows) == len(block.rows):
        return whole.index_copy_(0, block.positions, x)
    return whole.index_add_(0, block.index.view(-1)[block.all_rows], x)


def _padded_index(part: AttentionPart, length: int) -> Tensor:
    index = torch.full((length,), part.prompt[0][0])
    spans = (*part.prompt, *((each.start, each.length) for each in part.completions))
    index[: part.num_tokens] = torch.cat([torch.arange(start, start + fed) for start, fed in spans])
    return index


def _visible(part: AttentionPart, length: int) -> Tensor:
    """[length, length] bool. Padding sees itself alone: a row that sees nothing would be NaN."""
    visible = torch.eye(length, dtype=torch.bool)
    places: dict[int, int] = {}
    at = 0
    prompt = (Segment(*each, part.prompt[:number]) for number, each in enumerate(part.prompt))
    for segment in (*prompt, *part.completions):
        own = slice(at, at + segment.length)
        visible[own, own] = torch.ones(segment.length, segment.length, dtype=torch.bool).tril()
        for start, seen in segment.context:
            visible[own, places[start] : places[start] + seen] = True
        places[segment.start] = at
        at += segment.length
    return visible
