"""One rank of an NCCL group, with a deadline on every wait: NCCL's own have none.

What has not ended in time is aborted. A rank that waits inside `connect` for peers that never come has no group yet
that could be: its thread, a daemon, stays there until the process ends, and does not hold that up. Should the peers
come after all, the group is aborted as soon as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rayzero.services.schema.broadcast.deadline import bounded
from rayzero.services.schema.broadcast.nccl import Communicator, NcclLibrary, broadcast_all

T = TypeVar("T")


class NcclRank:
    """Connect, then broadcast as often as need be; after an error, or `close`, never again."""

    def __init__(
        self, library: NcclLibrary, stream: Callable[[], Any], given_up: Callable[[], bool] = lambda: False
    ) -> None:
        """`stream`, called in the thread that waits, makes this rank's GPU that thread's current one and returns a
        stream on it, beside those that compute. When `given_up` becomes true, all waits end."""
        self._library, self._stream, self._given_up = library, stream, given_up
        self._communicator: Communicator | None = None
        self._closed = False

    def new_id(self, deadline_s: float) -> bytes:
        """A unique id for the group, by its rank 0. Raises as `connect`."""
        return self._ended(self._library.new_id, deadline_s)

    def connect(self, unique_id: bytes, rank: int, world_size: int, probe: Any, deadline_s: float) -> None:
        """Join; returns when all ranks have, and a first message, rank 0's `probe` [n] uint8, has gone through: NCCL
        makes its connections and takes its memory with it, so what is short of either fails here.

        Raises:
            TimeoutError: not all ranks came in time.
            RuntimeError, OSError: NCCL failed, or is not there.
        """

        def work() -> None:
            stream = self._stream()
            communicator = self._communicator = self._library.connect(unique_id, rank, world_size)
            if self._closed:  # given up meanwhile, when there was nothing to abort
                self.close()
            broadcast_all(communicator, probe, stream)

        self._ended(work, deadline_s)

    def broadcast(self, memory: Any, deadline_s: float) -> None:
        """Rank 0's bytes into the `memory` [n] uint8 of all ranks. Raises as `connect`."""
        communicator = self._communicator
        if communicator is None:
            raise RuntimeError("NCCL: this group is closed")
        self._ended(lambda: broadcast_all(communicator, memory, self._stream()), deadline_s)

    def close(self) -> None:
        """Leave; peers that wait for this rank get an error, or wait until their own deadline."""
        self._closed = True
        communicator, self._communicator = self._communicator, None
        if communicator is not None:
            communicator.destroy()

    def _ended(self, work: Callable[[], T], deadline_s: float) -> T:
        try:
            return bounded(work, deadline_s, self._given_up)
        except BaseException:
            self.close()
            raise
