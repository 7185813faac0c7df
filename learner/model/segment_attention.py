"""Attention segment by segment: the queries of one run of tokens against what they see before it and, causally, itself.

Work grows with each segment's own queries times its own keys. The micro-batch is cut once where any segment begins or
ends; keys are put together from those pieces, so that the gradient of each goes back without a whole tensor a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from rayzero.learner.batch.tree import Segment

_QUERIES = 256
"""Queries at once on CPU: half of a long segment's square is hidden from it, and computed all the same (one layer
of an episode of 900 tokens with a branch of 300, forward and backward: 341 ms on one core, against 418 undivided)."""
_PARTS = 4
"""Most parts of a segment: each keeps keys of its own for the backward pass."""


@dataclass(frozen=True, slots=True)
class SegmentBlock:
    """Segments, and the pieces of [0, T) that they are made of."""

    segments: tuple[Segment, ...]
    sizes: tuple[int, ...]
    """Tokens of each piece, in order; they cover [0, T)."""
    queries: tuple[tuple[int, ...], ...]
    """Of each segment: its own pieces."""
    contexts: tuple[tuple[int, ...], ...]
    """Of each segment: the pieces that it sees before itself."""


def segment_block(segments: Sequence[Segment], num_tokens: int, max_queries: int = 0) -> SegmentBlock:
    """The block of some segments of a micro-batch of T tokens, the long ones divided; `max_queries` 0: none."""
    divided = tuple(part for segment in segments for part in _divided(segment, max_queries))
    ranges = [(each.start, each.length) for each in divided] + [r for each in divided for r in each.context]
    cuts = sorted({0, num_tokens, *(at for start, length in ranges for at in (start, start + length))})
    places = {at: number for number, at in enumerate(cuts)}

    def pieces(start: int, length: int) -> range:
        return range(places[start], places[start + length])

    return SegmentBlock(
        segments=divided,
        sizes=tuple(end - start for start, end in pairwise(cuts)),
        queries=tuple(tuple(pieces(each.start, each.length)) for each in divided),
        contexts=tuple(tuple(piece for r in each.context for piece in pieces(*r)) for each in divided),
    )


def cpu_block(segments: Sequence[Segment], num_tokens: int) -> SegmentBlock:
    """`segment_block` as a CPU computes it fastest."""
    return segment_block(segments, num_tokens, _QUERIES)


def segment_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, block: SegmentBlock) -> Tensor:
    """[n, H, d] of the block's segments, in their order. q [T, H, d], k and v [T, K, d]."""
    queries, keys, values = (x.split_with_sizes(block.sizes) for x in (q, k, v))
    outputs = []
    for segment, own, context in zip(block.segments, block.queries, block.contexts, strict=True):
        mask = None
        if segment.context:
            seen = segment.num_seen
            mask = torch.ones(segment.length, seen + segment.length, dtype=torch.bool, device=q.device).tril(seen)
        out = F.scaled_dot_product_attention(
            _joined(queries, own),
            _joined(keys, (*context, *own)),
            _joined(values, (*context, *own)),
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=True,
        )
        outputs.append(out[0].transpose(0, 1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _joined(parts: Sequence[Tensor], numbers: Sequence[int]) -> Tensor:
    """[1, H, n, d] of some pieces."""
    whole = parts[numbers[0]] if len(numbers) == 1 else torch.cat([parts[number] for number in numbers])
    return whole.transpose(0, 1)[None]


def _divided(segment: Segment, max_queries: int) -> list[Segment]:
    """A segment in parts of about so many queries, each of which sees those before it. What sees itself alone stays
    whole: the kernel leaves out by itself what is hidden there."""
    if not max_queries or segment.length <= max_queries or not segment.context:
        return [segment]
    count = min(-(-segment.length // max_queries), _PARTS)
    ends = [segment.length * number // count for number in range(count + 1)]
    return [
        Segment(segment.start + begin, end - begin, (*segment.context, *([(segment.start, begin)] if begin else [])))
        for begin, end in pairwise(ends)
    ]
