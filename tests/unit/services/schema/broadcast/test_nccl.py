"""The NCCL binding against a library with NCCL's own prototypes; waits that are bounded, and hold up no exit."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from rayzero.services.schema.broadcast import nccl
from rayzero.services.schema.broadcast.nccl import ID_BYTES, Nccl, broadcast_all
from rayzero.services.schema.broadcast.nccl_rank import NcclRank
from tests.system import needs

LIBRARY = """
#include <stddef.h>
#include <string.h>
#define NCCL_UNIQUE_ID_BYTES 128
typedef struct { char internal[NCCL_UNIQUE_ID_BYTES]; } ncclUniqueId;
typedef struct { int nranks, rank, aborted; ncclUniqueId id; } *ncclComm_t;
typedef int ncclResult_t, ncclDataType_t;
typedef struct stream *cudaStream_t;
static struct { int nranks, rank, aborted; ncclUniqueId id; } group;
static size_t sent[8];
static int messages;

const char* ncclGetErrorString(ncclResult_t result) {
  return result == 4 ? "invalid argument" : "remote process exited";
}
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  for (int i = 0; i < NCCL_UNIQUE_ID_BYTES; i++) id->internal[i] = (char)(i - 20);
  return 0;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int nranks, ncclUniqueId commId, int rank) {
  if (rank >= nranks) return 4;
  group.nranks = nranks; group.rank = rank; group.aborted = 0; group.id = commId;
  *comm = (ncclComm_t)&group;
  return 0;
}
ncclResult_t ncclBroadcast(const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  if (sendbuff != recvbuff || datatype != 1 || root != 0 || comm != (ncclComm_t)&group) return 4;
  if (stream != (cudaStream_t)0x123456789abc) return 6;
  memset(recvbuff, 7 + messages, count);
  sent[messages++ % 8] = count;
  return 0;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) { if (comm == (ncclComm_t)&group) group.aborted++; return 0; }
int aborted(void) { return group.aborted; }
"""


class Stream:
    cuda_stream = 0x123456789ABC

    def __init__(self) -> None:
        self.waits = 0

    def synchronize(self) -> None:
        self.waits += 1


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nccl")
    (folder / "nccl.c").write_text(LIBRARY)
    subprocess.run(["g++", "-x", "c", "-shared", "-fPIC", "-o", "libnccl.so", "nccl.c"], cwd=folder, check=True)
    return folder / "libnccl.so"


@needs("g++")
def test_calls_reach_the_library_as_its_header_wants_them(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_NCCL_SO_PATH", str(library))
    monkeypatch.setattr(nccl, "MESSAGE_BYTES", 1000)
    binding, stream = Nccl(), Stream()
    unique_id = binding.new_id()
    assert unique_id == bytes((index - 20) % 256 for index in range(ID_BYTES))
    communicator = binding.connect(unique_id, 1, 3)
    memory = torch.zeros(2500, dtype=torch.uint8)
    broadcast_all(communicator, memory, stream)
    assert memory.tolist() == [7] * 1000 + [8] * 1000 + [9] * 500
    assert stream.waits == 1
    stream.cuda_stream = 1
    with pytest.raises(RuntimeError, match="NCCL: remote process exited"):
        broadcast_all(communicator, memory, stream)
    for _ in range(2):
        communicator.destroy()
    assert ctypes.CDLL(str(library)).aborted() == 1
    with pytest.raises(RuntimeError, match="has been aborted"):
        broadcast_all(communicator, memory, stream)
    with pytest.raises(RuntimeError, match="NCCL: invalid argument"):
        binding.connect(unique_id, 3, 3)


def test_a_missing_library_is_an_error_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_NCCL_SO_PATH", "/nowhere/libnccl.so")
    slot = NcclRank(Nccl(), Stream)
    with pytest.raises(OSError, match="nowhere"):
        slot.new_id(5)


class Group:
    def __init__(self) -> None:
        self.destroyed = threading.Event()
        self.hangs = False

    def broadcast(self, tensor: torch.Tensor, root: int, stream: Stream) -> None:
        if self.hangs:
            self.destroyed.wait(10)

    def destroy(self) -> None:
        self.destroyed.set()


class Library:
    """Its groups stand when `peers` come."""

    def __init__(self) -> None:
        self.peers = threading.Event()
        self.group = Group()

    def new_id(self) -> bytes:
        return bytes(ID_BYTES)

    def connect(self, unique_id: bytes, rank: int, world_size: int) -> Group:
        self.peers.wait(10)
        return self.group


PROBE = torch.zeros(1, dtype=torch.uint8)


def test_a_group_whose_peers_come_too_late_is_aborted_when_it_stands() -> None:
    library = Library()
    slot = NcclRank(library, Stream)
    with pytest.raises(TimeoutError):
        slot.connect(bytes(ID_BYTES), 0, 2, PROBE, 0.1)
    assert not library.group.destroyed.is_set()
    library.peers.set()
    assert library.group.destroyed.wait(5)
    with pytest.raises(RuntimeError, match="closed"):
        slot.broadcast(PROBE, 1)


def test_a_first_message_that_does_not_go_through_aborts_the_group() -> None:
    library = Library()
    library.peers.set()
    library.group.hangs = True
    with pytest.raises(TimeoutError):
        NcclRank(library, Stream).connect(bytes(ID_BYTES), 0, 2, PROBE, 0.1)
    assert library.group.destroyed.is_set()


def test_a_broadcast_that_hangs_is_aborted_at_the_deadline_or_when_it_is_given_up() -> None:
    for deadline_s in (0.1, 10):
        library, given_up = Library(), threading.Event()
        library.peers.set()
        slot = NcclRank(library, Stream, given_up.is_set)
        slot.connect(bytes(ID_BYTES), 0, 2, PROBE, 5)
        library.group.hangs = True
        if deadline_s > 1:
            given_up.set()
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            slot.broadcast(PROBE, deadline_s)
        assert time.monotonic() - begun < 5 and library.group.destroyed.is_set()


def test_a_wait_inside_a_library_does_not_hold_up_the_end_of_the_process() -> None:
    """As ncclCommInitRank waits for peers that never come: in C, without Python's lock."""
    program = (
        "import ctypes\n"
        "from rayzero.services.schema.broadcast.deadline import bounded\n"
        "try:\n"
        "    bounded(lambda: ctypes.CDLL(None).sleep(300), 0.1)\n"
        "except TimeoutError:\n"
        "    print('gave up')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("gave up\n", "")
