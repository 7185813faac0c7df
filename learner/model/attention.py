"""Attention over packed trees: each completion sees what it continues and itself, and nothing else of the micro-batch.

Registered with transformers under `ATTENTION_NAME`; the layout of the micro-batch travels through the model's keyword
arguments. Three ways to compute the same thing, chosen by device and cost:

- on CPU: batches of a prompt with some of its completions under one mask (learner/model/dense_attention.py); long
  trees are divided, because work there grows with the square of the sum. A completion and its branches stay together.
- long completions on CPU: each against what it continues and self (learner/model/segment_attention.py), so that work
  grows with their own squares.
- CUDA: one varlen call whose key segments repeat for each completion what it continues; the kernel computes in 16 bits,
  so an fp32 policy takes the segments there, too.

Dropout inside attention is left out, for engines have none. A sliding window is neutral while sequences are no longer,
which services/run/preflight.py sees to; a longer one, or a cap on the scores, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from rayzero.learner.batch.tree import Segment, Tree
from rayzero.learner.model.dense_attention import AttentionPart, DenseBlock, dense_attention, dense_block
from rayzero.learner.model.segment_attention import SegmentBlock, cpu_block, segment_attention, segment_block

ATTENTION_NAME = "rayzero_tree"

_DENSE_TOKENS = 512
"""Up to this length a prompt with a completion goes through the dense path: above, the wasted half of the square costs
more than it saves."""
_SHORT_PROMPT = 64
"""Tokens: prompts below this are not worth a part of their own, however little it costs to compute them again."""
_PADDING = 0.8
"""Parts batched together are at least this share of the longest one's length."""


@dataclass(frozen=True, slots=True)
class VarlenLayout:
    """What torch's varlen attention takes; the keys are gathered so that every query segment has its own."""

    key_index: Tensor
    """[K] int64"""
    cu_seq_q: Tensor
    cu_seq_k: Tensor
    max_q: int
    max_k: int


@dataclass(slots=True)  # not frozen: torch.compile looks into frozen ones, and compiles anew for every micro-batch
class AttentionLayout:
    """How one micro-batch attends. Built once, used by every layer; never changed."""

    dense: tuple[DenseBlock, ...]
    segments: SegmentBlock | None
    varlen: VarlenLayout | None
    scatter: Tensor | None
    """[T] int64: row of the concatenated outputs that belongs at each position; none when they are in order."""
    longest: int
    """Tokens of the longest prompt with one of its completions, and what that continues."""


def build_layout(trees: Sequence[Tree], device: torch.device) -> AttentionLayout:
    """The layout of a micro-batch's trees on `device`."""
    num_tokens = sum(tree.num_tokens for tree in trees)
    every = [segment for tree in trees for segment in _segments(tree)]
    longest = max((segment.num_seen + segment.length for segment in every), default=0)
    if device.type == "cuda":
        scatter = _scatter((), every, num_tokens)
        scatter = None if scatter is None else scatter.to(device)
        return AttentionLayout((), segment_block(every, num_tokens), _varlen(trees, device), scatter, longest)
    parts = [part for tree in trees for part in _parts(tree)]
    blocks = tuple(dense_block(bucket) for bucket in _buckets(sorted(parts, key=lambda part: -part.num_tokens)))
    long = [segment for tree in trees for segment in _long_segments(tree)]
    segments = cpu_block(long, num_tokens) if long else None
    return AttentionLayout(blocks, segments, None, _scatter(blocks, long, num_tokens), longest)


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    layout: AttentionLayout,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention for transformers: query [1, H, T, d], key and value [1, K, T, d] -> [1, T, H, d].

    Raises ValueError where the model would attend otherwise than this does.
    """
    if softcap is not None:
        raise ValueError(f"attention scores capped at {softcap} are not computed")
    if sliding_window and layout.longest > sliding_window:
        raise ValueError(
            f"a sequence of {layout.longest} tokens does not fit the model's window of {sliding_window}: lower "
            "rollout.max_model_tokens"
        )
    q, k, v = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    if layout.varlen is not None and q.dtype != torch.float32:
        return _varlen_attention(q, k, v, scaling, layout.varlen)[None], None
    outputs = [dense_attention(q, k, v, scaling, block) for block in layout.dense]
    if layout.segments is not None:
        outputs.append(segment_attention(q, k, v, scaling, layout.segments))
    out = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    if layout.scatter is not None:
        out = out.index_select(0, layout.scatter)
    return out[None], None


# Layouts differ in every micro-batch: inside a compiled graph each would be compiled anew.
AttentionInterface.register(ATTENTION_NAME, torch.compiler.disable(tree_attention))  # type: ignore[no-untyped-call]


def _varlen_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, layout: VarlenLayout) -> Tensor:
    """[T, H, d] on CUDA. Causality is aligned to the end of each key segment, behind what is repeated there."""
    from torch.nn.attention.varlen import varlen_attn

    keys, values = k.index_select(0, layout.key_index), v.index_select(0, layout.key_index)
    # Newer torch wants to be told of fewer key heads than query heads; torch 2.11 has no word for it, and takes them.
    grouped: dict[str, Any] = {"enable_gqa": q.shape[1] != k.shape[1]} if _has_word(varlen_attn) else {}
    out = varlen_attn(
        q.contiguous(), keys, values, layout.cu_seq_q, layout.cu_seq_k, layout.max_q, layout.max_k,
        scale=scale, window_size=(-1, 0), **grouped,
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return out


@cache
def _has_word(varlen_attn: Callable[..., Any]) -> bool:
    return "enable_gqa" in signature(varlen_attn).parameters


def _parts(tree: Tree) -> list[AttentionPart]:
    """What of a tree goes through the dense path: its prompt with completions, in parts of about one length."""
    units = [unit for unit in tree.units if _is_dense(tree, unit)]
    if not units:
        return [AttentionPart(tree.path, (), tree.path_length - tree.prompt_length)] if _is_dense(tree, ()) else []
    count = min(_num_parts(tree.path_length, sum(map(_num_tokens, units))), len(units))
    runs: list[list[tuple[Segment, ...]]] = [[] for _ in range(count)]
    # Longest first to the shortest run: runs of one length pad each other least.
    for unit in sorted(units, key=lambda unit: -_num_tokens(unit)):
        min(runs, key=lambda run: sum(map(_num_tokens, run))).append(unit)
    return [
        AttentionPart(tree.path, _in_order(run), tree.path_length - (0 if number else tree.prompt_length))
        for number, run in enumerate(run for run in runs if run)
    ]


def _num_parts(prompt_length: int, completion_tokens: int) -> int:
    """Into how many parts a tree is divided. The squares of c parts, c (P + N / c)^2, are least at c = N / P; what a
    part costs besides makes half of that better (one layer of the benchmark's ragged lengths, forward and backward:
    151 ms on one core against 178 at c = N / P and 327 undivided)."""
    return max(round(completion_tokens / (2 * max(prompt_length, _SHORT_PROMPT))), 1)


def _is_dense(tree: Tree, unit: Sequence[Segment]) -> bool:
    """A completion that is short enough with its prompt and its branches; the prompt itself goes with those that are,
    or alone."""
    return tree.path_length + _num_tokens(unit) <= _DENSE_TOKENS


def _num_tokens(unit: Sequence[Segment]) -> int:
    return sum(segment.length for segment in unit)


def _in_order(units: Sequence[Sequence[Segment]]) -> tuple[Segment, ...]:
    return tuple(sorted((segment for unit in units for segment in unit), key=lambda segment: segment.start))


def _long_segments(tree: Tree) -> list[Segment]:
    """What does not go through the dense path."""
    prompt = [] if _is_dense(tree, ()) else [tree.prompt]
    return prompt + [segment for unit in tree.units if not _is_dense(tree, unit) for segment in unit]


def _buckets(parts: Sequence[AttentionPart]) -> list[list[AttentionPart]]:
    """Parts, longest first, in runs whose lengths differ little."""
    buckets: list[list[AttentionPart]] = []
    for part in parts:
        if buckets and part.num_tokens >= _PADDING * buckets[-1][0].num_tokens:
            buckets[-1].append(part)
        else:
            buckets.append([part])
    return buckets


def _segments(tree: Tree) -> list[Segment]:
    return [tree.prompt, *(segment for segment in tree.completions if segment.length)]


def _scatter(blocks: Sequence[DenseBlock], segments: Sequence[Segment], num_tokens: int) -> Tensor | None:
    """Row of the concatenated outputs for each position."""
    parts = [block.positions for block in blocks]
    parts += [torch.arange(segment.start, segment.start + segment.length) for segment in segments]
    positions = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)
    scatter = torch.empty(num_tokens, dtype=torch.int64)
    scatter[positions] = torch.arange(num_tokens)
    return None if torch.equal(scatter, torch.arange(num_tokens)) else scatter


def _varlen(trees: Sequence[Tree], device: torch.device) -> VarlenLayout:
    segments = [segment for tree in trees for segment in _segments(tree)]
    keys = [
        torch.cat([torch.arange(start, start + n) for start, n in (*segment.context, (segment.start, segment.length))])
        for segment in segments
    ]
    lengths_q, lengths_k = [segment.length for segment in segments], [len(key) for key in keys]
    return VarlenLayout(
        key_index=torch.cat(keys).to(device),
        cu_seq_q=_cumulative(lengths_q, device),
        cu_seq_k=_cumulative(lengths_k, device),
        max_q=max(lengths_q),
        max_k=max(lengths_k),
    )


def _cumulative(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
