"""What changes in the send buffer from one version to the next, for receivers that hold the one before.

At the learning rates of RL most weights keep their bf16 value from update to update (docs/benchmarks.md). Sent is a bit
for each word of 16 bits, and the words that are new: no less than a sixteenth of the bytes, exact to the bit.
"""

from __future__ import annotations

import torch

from rayzero.services.schema.broadcast.wire import DELTA_SHARE, delta_bits_bytes

BITS = (1, 2, 4, 8, 16, 32, 64, 128)


class Delta:
    """Made tensor by tensor while the buffer is filled; its memory is kept from version to version."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        """Of a buffer of `num_bytes` on `device`."""
        self._num_bit_bytes = delta_bits_bytes(num_bytes)
        self._memory = torch.zeros(num_bytes // DELTA_SHARE, dtype=torch.uint8, device=device)
        self._powers = torch.tensor(BITS, dtype=torch.uint8, device=device)
        self._used = 0
        self.since: str | None = None
        """The content that receivers must hold; None: there is none before."""

    def begin(self, since: str | None) -> None:
        """Against the content `since`, nothing has changed yet."""
        self.since, self._used = since, self._num_bit_bytes
        self._memory[: self._num_bit_bytes] = 0

    def add(self, offset_bytes: int, old: torch.Tensor, new: torch.Tensor) -> None:
        """`old`, `new`: [n] int16, a tensor's words, which begin at `offset_bytes` of the buffer. Once there are too
        many it is no delta any more."""
        if self.since is None:
            return
        changed = old != new
        words = new[changed].view(torch.uint8)
        if self._used + words.numel() > self._memory.numel():
            self.since = None
            return
        self._memory[self._used : self._used + words.numel()] = words
        self._used += words.numel()
        first = delta_bits_bytes(offset_bytes)
        bits = torch.nn.functional.pad(changed, (0, -len(changed) % len(BITS))).view(-1, len(BITS))
        self._memory[first : first + len(bits)] = (bits * self._powers).sum(1, dtype=torch.uint8)

    @property
    def message(self) -> torch.Tensor:
        """[n] uint8: what is sent."""
        return self._memory[: self._used]


def words_of(tensor: torch.Tensor) -> torch.Tensor:
    """[n] int16 of a tensor of any dtype of 16 or 32 bits: `WORD_BYTES` each."""
    return tensor.reshape(-1).view(torch.int16)
