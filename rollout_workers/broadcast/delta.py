"""A version of the weights made of the one before it and of what is new; learner/broadcast/delta.py has the form."""

from __future__ import annotations

import torch

from rayzero.services.schema.broadcast.wire import WORD_BYTES, delta_bits_bytes
from rayzero.services.schema.errors import WeightSyncError

PART_BIT_BYTES = 2**20
"""Bytes of bits that are worked on at a time: 16 MiB of weights."""


def apply_delta(words: torch.Tensor, delta: torch.Tensor) -> None:
    """Write what is new into `words` [n] int16, where `delta` [bytes] uint8 lies on the same device.

    Raises:
        WeightSyncError: the delta is of another length than its own bits say.
    """
    num_bit_bytes = delta_bits_bytes(words.numel() * WORD_BYTES)
    bits, new = delta[:num_bit_bytes], delta[num_bit_bytes:].view(torch.int16)
    places = torch.arange(8, dtype=torch.uint8, device=delta.device)
    used = 0
    for start in range(0, num_bit_bytes, PART_BIT_BYTES):
        part = bits[start : start + PART_BIT_BYTES]
        changed = (part[:, None] >> places & 1).bool().view(-1)
        count = int(changed.sum())
        if used + count > new.numel():
            break
        words[8 * start : 8 * start + changed.numel()].masked_scatter_(changed, new[used : used + count])
        used += count
    else:
        if used == new.numel():
            return
    raise WeightSyncError(f"a delta of {delta.numel()} bytes came, which its own bits contradict")
