"""A program's stdin as a file in memory: judges give one, and programs ask it for its size."""

from __future__ import annotations

import fcntl
import os

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class StdinFile:
    """Made empty, handed to a box for reading, filled once, then sealed: no box can write to it."""

    def __init__(self) -> None:
        """Two descriptors until `close`. `theirs` has a position of its own and cannot write."""
        self._ours = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            # Others may read: a program that opens /dev/stdin does so as another user.
            os.fchmod(self._ours, 0o444)
            self.theirs = os.open(f"/proc/self/fd/{self._ours}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._ours)
            raise

    def hand_over(self) -> int:
        """The reading descriptor, which is the caller's to close from here on."""
        theirs, self.theirs = self.theirs, -1
        return theirs

    def fill(self, data: bytes) -> None:
        """Write all of it; the program must not have begun."""
        if self._ours < 0:
            return
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._ours, rest) :]
        fcntl.fcntl(self._ours, fcntl.F_ADD_SEALS, _SEALS)
        self.close()

    def close(self) -> None:
        """Give back what is still open."""
        for descriptor in (self._ours, self.theirs):
            if descriptor >= 0:
                os.close(descriptor)
        self._ours = self.theirs = -1
