"""NCCL as far as the weight broadcast needs it: form a group by its unique id, broadcast in it, abort it alone.

Its C interface by ctypes, for tensors and streams of torch, which this package does not import. torch's own NCCL group
ends the process when a peer is late, and vLLM's binding would bring all of vLLM, and its changes to torch, into the
learner. Both ends of the wire use this one, so neither has to follow another's handshake.

Calls wait for the peers without a deadline: make them through services/schema/broadcast/nccl_rank.py.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import cached_property
from typing import Any, Protocol

from rayzero.services.schema.broadcast.deadline import bounded

LIBRARY = "libnccl.so.2"
"""Found without a path because torch for CUDA has loaded it."""

ID_BYTES = 128

MESSAGE_BYTES = 256 * 2**20
"""Both ends cut what is broadcast by it."""

ABORT_S = 5.0
"""An abort that takes longer goes on beside its caller."""

UINT8 = 1
"""ncclDataType_t."""


class Communicator(Protocol):
    """One rank's end of a group."""

    def broadcast(self, tensor: Any, root: int, stream: Any) -> None:
        """Enqueue on `stream`: `root`'s contiguous tensor into those of all ranks."""
        ...

    def destroy(self) -> None:
        """Abort: what waits inside ends, here and at the peers."""
        ...


class NcclLibrary(Protocol):
    """Where groups come from."""

    def new_id(self) -> bytes:
        """A unique id for a new group, made by its rank 0."""
        ...

    def connect(self, unique_id: bytes, rank: int, world_size: int) -> Communicator:
        """Returns when all ranks have called it. The GPU is the calling thread's current one."""
        ...


class Nccl:
    """The library itself; loaded at the first call, which on CPUs is never.

    Raises (from every call) RuntimeError with NCCL's own words, or OSError where there is no such library.
    """

    def new_id(self) -> bytes:
        """See `NcclLibrary`."""
        unique_id = _UniqueId()
        self.check(self.functions.ncclGetUniqueId(ctypes.byref(unique_id)))
        return bytes(unique_id)

    def connect(self, unique_id: bytes, rank: int, world_size: int) -> NcclCommunicator:
        """See `NcclLibrary`."""
        handle = ctypes.c_void_p()
        group = _UniqueId.from_buffer_copy(unique_id)
        self.check(self.functions.ncclCommInitRank(ctypes.byref(handle), world_size, group, rank))
        return NcclCommunicator(self, handle)

    def check(self, result: int) -> None:
        """Raise what a call's result says."""
        if result != 0:
            raise RuntimeError(f"NCCL: {self.functions.ncclGetErrorString(result).decode()}")

    @cached_property
    def functions(self) -> Any:
        """The C functions. VLLM_NCCL_SO_PATH names another library, as it does for vLLM."""
        library = ctypes.CDLL(os.environ.get("VLLM_NCCL_SO_PATH") or LIBRARY)
        library.ncclGetErrorString.restype = ctypes.c_char_p
        library.ncclGetErrorString.argtypes = [ctypes.c_int]
        library.ncclGetUniqueId.argtypes = [ctypes.POINTER(_UniqueId)]
        library.ncclCommInitRank.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, _UniqueId, ctypes.c_int]
        library.ncclBroadcast.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_void_p,
            ctypes.c_void_p,
        ]  # fmt: skip
        library.ncclCommAbort.argtypes = [ctypes.c_void_p]
        return library


class NcclCommunicator:
    """A group that `Nccl.connect` has made."""

    def __init__(self, library: Nccl, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle: ctypes.c_void_p | None = handle

    def broadcast(self, tensor: Any, root: int, stream: Any) -> None:
        """See `Communicator`."""
        if self._handle is None:
            raise RuntimeError("NCCL: this group has been aborted")
        address = tensor.data_ptr()
        call = self._library.functions.ncclBroadcast
        self._library.check(call(address, address, tensor.nbytes, UINT8, root, self._handle, stream.cuda_stream))

    def destroy(self) -> None:
        """See `Communicator`. Once; whatever the abort itself fails of, the group is gone."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with suppress(TimeoutError):
                bounded(lambda: self._library.functions.ncclCommAbort(handle), ABORT_S)


def broadcast_all(communicator: Communicator, memory: Any, stream: Any) -> None:
    """Rank 0's bytes into the `memory` [n] uint8 of all ranks, as large on each; returns when they are there.

    The ends lay their memory out alike, so it is itself what is sent.
    """
    for message in memory.split(MESSAGE_BYTES):
        communicator.broadcast(message, 0, stream)
    stream.synchronize()


class _UniqueId(ctypes.Structure):
    _fields_ = (("internal", ctypes.c_byte * ID_BYTES),)
