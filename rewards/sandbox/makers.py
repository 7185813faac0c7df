"""Who makes the boxes that wait for a Python job: a zygote that forks them, or a launcher that starts each anew."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rayzero.rewards.sandbox.boxes import Box, BoxError, launch, open_to, read_some, spawn
from rayzero.rewards.sandbox.folders import Folder
from rayzero.rewards.sandbox.reaper import Ended, Reaper
from rayzero.rewards.sandbox.stdin_file import StdinFile

REPORT = struct.Struct("!iidq")
"""As in inside/zygote.py."""
_CREDENTIALS = struct.Struct("iII")
START_DEADLINE_S = 30.0
WARM_DEADLINE_S = 120.0
"""A warm interpreter may have a large package to import."""


class BoxMaker(Protocol):
    """Makes boxes that wait for a Python job."""

    async def make(self, memory_bytes: int) -> Box:
        """A ready box; BoxError where none can be made."""

    def close(self) -> None:
        """End everything that this maker keeps alive."""


async def readable(descriptor: int, deadline_s: float) -> None:
    """Wait until `descriptor` can be read; TimeoutError at the deadline."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await asyncio.wait_for(ready, deadline_s)
    finally:
        loop.remove_reader(descriptor)


def _sender_pid(job: socket.socket) -> int:
    """Receive the box's first byte; the kernel says who sent it, as a pid of our own namespace."""
    data, ancillary, _, _ = job.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
    if not data or not ancillary:
        raise BoxError("the box ended before it was ready")
    pid, _, _ = _CREDENTIALS.unpack(ancillary[0][2][: _CREDENTIALS.size])
    return int(pid)


def _job_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    ours.setblocking(False)
    return ours, theirs


class Zygote:
    """A warm interpreter that forks boxes; see inside/zygote.py."""

    def __init__(self, reaper: Reaper, command: Sequence[str], user: int | None, *, namespaces: bool = True) -> None:
        """`command`: the zygote's own command line, in bubblewrap if boxes get namespaces; else each is a process
        group. Started by `start`."""
        self._reaper = reaper
        self._namespaces = namespaces
        self._command = list(command)
        self._user = user
        self._orders: socket.socket | None = None
        self._end: asyncio.Future[Ended] | None = None
        self._pid = 0
        self._starting = asyncio.Lock()
        self._is_closed = False

    async def start(self) -> None:
        """Start the interpreter and wait until it is warm."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        process = spawn(self._command, user=self._user, channel=theirs, stdout=subprocess.DEVNULL)
        theirs.close()
        self._pid, self._end = process.pid, self._reaper.expect(process.pid)
        try:
            await readable(ours.fileno(), WARM_DEADLINE_S)
            if ours.recv(16) != b"warm":
                raise BoxError("bubblewrap or the interpreter in it did not start: " + _complaint(process)[-1000:])
        except (TimeoutError, OSError) as error:
            ours.close()
            raise BoxError(f"the warm interpreter did not start: {error}") from error
        self._orders = ours

    async def make(self, memory_bytes: int) -> Box:
        """Fork a box."""
        async with self._starting:
            if self._is_closed:
                raise BoxError("the zygote is closed")
            if self._end is None or self._end.done():
                self._end_process()
                await self.start()
        if self._orders is None:
            raise BoxError("the zygote is closed")
        report, theirs_report = socket.socketpair()
        job, theirs_job = _job_pair()
        stdin = StdinFile()
        stdout, stdout_write = os.pipe()
        open_to(self._user, stdout_write)
        theirs = (theirs_report.detach(), theirs_job.detach(), stdin.hand_over(), stdout_write)
        end: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        try:
            try:
                socket.send_fds(self._orders, [b"box"], theirs)
            finally:
                for descriptor in theirs:
                    os.close(descriptor)
            await readable(job.fileno(), START_DEADLINE_S)
            pid = _sender_pid(job)
            pidfd = os.pidfd_open(pid)
        except (OSError, TimeoutError, BoxError) as error:
            reason = _report_error(report)
            for closable in (report, job):
                closable.close()
            stdin.close()
            os.close(stdout)
            raise BoxError(f"the zygote made no box: {reason or error}") from error
        end.add_done_callback(
            lambda future: future.cancelled() or future.exception()
        )  # seen, even if no run waits for it
        _watch_report(report, end)
        apart = self._namespaces
        return Box(pid, pidfd, end, stdin, stdout, job, group=not apart, shares_count=not apart)

    def close(self) -> None:
        """End the zygote, and with it every box; it makes no more."""
        self._is_closed = True
        self._end_process()

    def _end_process(self) -> None:
        if self._orders is not None:
            self._orders.close()
            self._orders = None
        if self._end is not None and not self._end.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)


def _report_error(report: socket.socket) -> str:
    report.setblocking(False)
    with contextlib.suppress(OSError, struct.error):
        _, number, _, _ = REPORT.unpack(report.recv(REPORT.size))
        return os.strerror(number) if number else ""
    return ""


def _watch_report(report: socket.socket, end: asyncio.Future[Ended]) -> None:
    """Turn the keeper's report into the end of the box; a keeper that vanishes is an infrastructure failure."""
    loop = asyncio.get_running_loop()

    def receive() -> None:
        loop.remove_reader(report.fileno())
        data = report.recv(REPORT.size)
        report.close()
        if end.done():
            return
        if len(data) < REPORT.size:
            end.set_exception(BoxError("the box's keeper vanished"))
            return
        status, _, cpu_s, memory_bytes = REPORT.unpack(data)
        end.set_result(Ended(status, cpu_s, memory_bytes))

    loop.add_reader(report.fileno(), receive)


@dataclass(frozen=True)
class BoxPlan:
    """How the next box is started; the fields are those of `boxes.launch`."""

    command: Sequence[str]
    user: int | None
    release: Callable[[], None] = lambda: None
    passed: Sequence[int] = ()
    shares_count: bool = False
    folder: Folder | None = None


class Launcher:
    """Starts a new interpreter for every box, confined by a command line that the backend writes."""

    def __init__(self, reaper: Reaper, plan: Callable[[], BoxPlan]) -> None:
        """`plan` is asked once a box; BoxError or OSError where there can be none."""
        self._reaper = reaper
        self._plan = plan

    async def make(self, memory_bytes: int) -> Box:
        """Start one."""
        try:
            plan = self._plan()
        except OSError as error:
            raise BoxError(str(error)) from error
        job, theirs = _job_pair()
        try:
            box = launch(
                self._reaper, plan.command, user=plan.user, channel=theirs, job=job, release=plan.release,
                passed=plan.passed, shares_count=plan.shares_count, folder=plan.folder,
            )  # fmt: skip
        except BoxError:
            job.close()
            raise
        finally:
            theirs.close()
        try:
            await readable(job.fileno(), START_DEADLINE_S)
            _sender_pid(job)
        except (TimeoutError, OSError, BoxError) as error:
            box.kill()
            ended = await box.end
            complaint = read_some(box.stderr)
            box.close()
            raise BoxError(f"the box did not start (status {ended.status}): {complaint or error}") from error
        return box

    def close(self) -> None:
        """Nothing is kept."""


def _complaint(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    return read_some(process.stderr.fileno())
