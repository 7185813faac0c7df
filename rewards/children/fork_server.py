"""The process side of the child pool: a fork server that forks children, and what a child does.

    pool ──spawn──► fork server (imports the work once, stays single-threaded) ──fork──► child ◄──items── pool

A fork of a process that has imported already costs milliseconds, so that a killed child is cheap to replace; and it is
forked from a small, idle process of its own, never from the caller with its threads, sockets and secrets. The server
alone kills children, by process ids that it has not reaped yet: an id can never mean another process.

Wire, pool ↔ fork server (control.py): JSON objects (`{"op": "fork"}` with a socket, `{"op": "kill", "pid": …}`; back
come `{"exit": pid, "status": …}`). Pool → child: frames of pickle; child → pool: frames of JSON, since what ran in a
child is not to be unpickled. A frame is four bytes of length, big-endian, and the body.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import pickle
import select
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from rayzero.rewards.children.control import ControlReader, packed

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
HEADER = struct.Struct(">I")
_OVER: Any = object()


def main(control_fd: int, target: str, warm_up: str, warm_first: str, preload: list[str]) -> None:
    """Serve fork and kill requests until the pool closes its end; then end every child.

    `warm_up` names a generator function whose steps are taken between requests, from the first kill on: a pool that
    replaces children profits from warm ones, and a tool that grades one case does not wait for them. With `warm_first`
    they are taken before the first fork: a pool that lives long waits once.
    """
    control = socket.socket(fileno=control_fd)
    requests = ControlReader(control)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a child leaves behind comes here to be reaped, not to a deaf PID 1
    for module in preload:
        with contextlib.suppress(Exception):  # the child reports it in full when it imports the module itself
            importlib.import_module(module)
    if warm_first and warm_up:
        deque(resolve(warm_up)(), maxlen=0)
        warm_up = ""
    gc.freeze()  # children share these pages as long as no collection touches them
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: set[int] = set()
    steps: Iterator[None] | None = None
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    try:
        while True:
            for fd, _ in poller.poll(None if steps is None else 0):
                if fd == wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                    continue
                received = requests.read()
                if received is None:
                    return
                for request in received[0]:
                    _obey(request, received[1], control, children, target)
                    if request["op"] == "kill" and warm_up:
                        steps, warm_up = resolve(warm_up)(), ""
            _reap(control, children)
            if steps is not None and not _step(steps):
                steps = None
                gc.freeze()
    finally:
        for pid in children:
            _kill(pid)
        with contextlib.suppress(ChildProcessError):
            while True:  # a dead child left to a PID 1 that does not reap stays a zombie for ever
                os.wait()


def resolve(target: str) -> Any:
    """The object that `module:name` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _step(steps: Iterator[None]) -> bool:
    """Take one step; False when there are no more. One that fails is the last: children do without."""
    try:
        return next(steps, _OVER) is not _OVER
    except Exception:
        return False


def _prctl(option: int, value: int) -> None:
    """Linux alone can do either; elsewhere a fork server that is killed leaves its children behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value)


def _obey(request: dict[str, Any], sockets: list[int], control: socket.socket, children: set[int], target: str) -> None:
    """Carry out one request; a child takes the first of the sockets that came along."""
    if request["op"] == "kill":
        if request["pid"] in children:
            _kill(request["pid"])
        return
    channel = sockets.pop(0)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        control.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # should the fork server itself be killed
        _child(socket.socket(fileno=channel), target)
    children.add(pid)
    os.close(channel)


def _kill(pid: int) -> None:
    """The child and what it started: it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _reap(control: socket.socket, children: set[int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid in children:
            children.discard(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # a child that ended by itself may have left others running
            with contextlib.suppress(OSError):
                control.send(packed({"exit": pid, "status": os.waitstatus_to_exitcode(status)}))


def _child(channel: socket.socket, target: str) -> None:
    """Answer items until the pool closes the channel. Never returns."""
    code = 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Prints, by which rewards are debugged, wait for 8 kB before a file gets them, and go with a killed child.
        sys.stdout.reconfigure(line_buffering=True)
    try:
        _serve(channel, target)
    except (EOFError, ConnectionError):
        pass
    except BaseException:
        code = 1
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # never back into the fork server's frames, whatever the work did


def _serve(channel: socket.socket, target: str) -> None:
    argument, memory_bytes = pickle.loads(_receive(channel))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # under memory pressure the kernel takes a child, not the actor
    try:
        handler: Callable[[Any], Any] = resolve(target)(argument)
        _limit_memory(memory_bytes)
    except BaseException as error:
        _send(channel, {"pid": os.getpid(), "error": _describe(error)})
        raise
    _send(channel, {"pid": os.getpid()})
    while True:
        reply: dict[str, Any]
        item = pickle.loads(_receive(channel))
        try:
            result = handler(item)
            reply = {"result": result}
            json.dumps(result)
        except MemoryError as error:
            reply = {"error": _describe(error), "cause": "memory"}
        except BaseException as error:
            reply = {"error": _describe(error), "cause": getattr(error, "cause", "exception")}
        item = result = None
        _send(channel, reply)


def _limit_memory(memory_bytes: int) -> None:
    """Bound what is allocated from now on: data, not address space, which libraries reserve by the gigabyte.

    Elsewhere than on Linux what is allocated already is not known, and nothing is bounded.
    """
    if sys.platform != "linux":
        return
    import resource

    used = 0
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmData:"):
                used = int(line.split()[1]) * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = used + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    size = 0 if hard == 0 else 1  # at 1 no handler of crashes is started either, which 0 would start
    resource.setrlimit(resource.RLIMIT_CORE, (size, size))


def _describe(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:
        text = type(error).__name__
    return text[:2000]


def _receive(channel: socket.socket) -> bytes:
    (length,) = HEADER.unpack(_read_exactly(channel, HEADER.size))
    return _read_exactly(channel, length)


def _read_exactly(channel: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = channel.recv(min(length - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _send(channel: socket.socket, reply: dict[str, Any]) -> None:
    body = json.dumps(reply).encode()
    channel.sendall(HEADER.pack(len(body)) + body)
