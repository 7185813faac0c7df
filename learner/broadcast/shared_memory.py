"""Memory that receivers on the same machine read without a copy on the way."""

from __future__ import annotations

import mmap
import os
import secrets

import torch

from rayzero.services.schema.broadcast.wire import SharedBufferName


class SharedBuffer:
    """An anonymous file in memory. It leaves nothing behind: it ends with the last process that uses it."""

    def __init__(self, num_bytes: int) -> None:
        label = f"rayzero-{secrets.token_hex(8)}"
        self._descriptor = os.memfd_create(label)
        os.ftruncate(self._descriptor, max(num_bytes, 1))
        self.name = SharedBufferName(process=os.getpid(), descriptor=self._descriptor, label=label, num_bytes=num_bytes)
        self.memory = torch.frombuffer(mmap.mmap(self._descriptor, max(num_bytes, 1)), dtype=torch.uint8)[:num_bytes]
        """[num_bytes] uint8."""

    def close(self) -> None:
        """No further process can open it; one that has it open keeps it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()
