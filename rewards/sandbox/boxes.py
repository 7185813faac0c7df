"""Boxes: started, confined, waiting for a job. Two makers: a zygote that forks them, and a launcher that starts each
anew."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rayzero.rewards.sandbox.bwrap import ENVIRONMENT
from rayzero.rewards.sandbox.reaper import Ended, Reaper
from rayzero.rewards.sandbox.stdin_file import StdinFile

REPORT = struct.Struct("!iidq")
"""As in inside/zygote.py."""
_CREDENTIALS = struct.Struct("iII")
START_DEADLINE_S = 30.0


class BoxError(Exception):
    """A box could not be made, or its keeper vanished: the machine's fault, not the program's."""


@dataclass
class Box:
    """One confined process, single use."""

    pid: int
    pidfd: int
    end: asyncio.Future[Ended]
    """Fails with BoxError when the end cannot be known."""
    stdin: StdinFile
    stdout: int
    job: socket.socket | None = None
    stderr: int | None = None
    status: int | None = None
    """Where bubblewrap says the pid of the process that it put in charge of the box."""
    group: bool = False
    """The box is a process group, not a pid namespace: killing it means killing the group."""
    release: Callable[[], None] = lambda: None
    _closed: bool = field(default=False, repr=False)

    def kill(self) -> None:
        """End the box and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            if self.group and not self.end.done():
                os.killpg(self.pid, signal.SIGKILL)
            if not self._closed:  # a closed descriptor's number may be another box's by now
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Give back every descriptor. The box must have ended."""
        if self._closed:
            return
        self._closed = True
        for descriptor in (self.stdout, self.stderr, self.status, self.pidfd):
            if descriptor is not None and descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self.stdin.close()
        if self.job is not None:
            self.job.close()
        self.release()


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
    """A warm interpreter in bubblewrap that forks boxes; see inside/zygote.py."""

    def __init__(self, reaper: Reaper, command: Sequence[str], user: int | None) -> None:
        """`command`: bubblewrap and the zygote's own command line. Started by `start`."""
        self._reaper = reaper
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
            await readable(ours.fileno(), START_DEADLINE_S)
            if ours.recv(16) != b"warm":
                raise BoxError("bubblewrap or the interpreter in it did not start: " + _complaint(process))
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
        return Box(pid, pidfd, end, stdin, stdout, job)

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


class Launcher:
    """Starts a new interpreter for every box, confined by a command line that the backend writes."""

    def __init__(
        self, reaper: Reaper, plan: Callable[[], tuple[list[str], int | None, Callable[[], None], Sequence[int]]]
    ) -> None:
        """`plan` gives a box's command, user, what to do when it is gone, and descriptors to pass on."""
        self._reaper = reaper
        self._plan = plan

    async def make(self, memory_bytes: int) -> Box:
        """Start one."""
        command, user, release, passed = self._plan()
        job, theirs = _job_pair()
        try:
            box = launch(self._reaper, command, user=user, channel=theirs, job=job, release=release, passed=passed)
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
            complaint = _read_some(box.stderr)
            box.close()
            raise BoxError(f"the box did not start (status {ended.status}): {complaint or error}") from error
        return box

    def close(self) -> None:
        """Nothing is kept."""


def spawn(
    command: Sequence[str], *, user: int | None, channel: socket.socket | None, stdout: int, stdin: int =
    subprocess.DEVNULL,
    passed: Sequence[int] = (),
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a process with a clean environment in a session of its own; `{channel}` in `command` becomes the
    channel's number."""
    fds = list(passed)
    if channel is not None:
        fds.append(channel.fileno())
        command = [part.replace("{channel}", str(channel.fileno())) for part in command]
    identity: Mapping[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    process = subprocess.Popen(
        command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=ENVIRONMENT, cwd="/", pass_fds=fds,
        start_new_session=True, **identity,
    )  # fmt: skip
    process.returncode = 0  # the reaper waits for it, never Popen
    return process


def launch(
    reaper: Reaper,
    command: Sequence[str],
    *,
    user: int | None,
    channel: socket.socket | None = None,
    job: socket.socket | None = None,
    release: Callable[[], None] = lambda: None,
    passed: Sequence[int] = (),
    status: int | None = None,
    given: bytes | None = None,
) -> Box:
    """Start `command` as a box of which this process is the parent. `status`: see Box. `given`: its stdin, where the
    program does not wait for a job."""
    stdin = StdinFile()
    try:
        if given is not None:
            theirs = stdin.hand_over()
            stdin.fill(given)
            stdin.theirs = theirs
        process = spawn(command, user=user, channel=channel, stdout=subprocess.PIPE, stdin=stdin.theirs, passed=passed)
    except OSError as error:
        stdin.close()
        release()
        if status is not None:
            os.close(status)
        raise BoxError(f"cannot start {command[0]}: {error}") from error
    finally:
        for descriptor in passed:
            os.close(descriptor)
    assert process.stdout is not None and process.stderr is not None
    os.close(stdin.hand_over())
    open_to(user, process.stdout.fileno(), process.stderr.fileno())
    pid = process.pid
    pidfd = os.pidfd_open(pid)

    def before_reaping() -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)

    stdout, stderr = (os.dup(stream.fileno()) for stream in (process.stdout, process.stderr))
    for stream in (process.stdout, process.stderr):
        stream.close()
    end = reaper.expect(pid, before_reaping)
    return Box(pid, pidfd, end, stdin, stdout, job, stderr, status, True, release)


def open_to(user: int | None, *pipes: int) -> None:
    """Let another user open these pipes by name: programs that read /dev/stdin do."""
    if user is not None:
        for descriptor in pipes:
            os.fchmod(descriptor, 0o666)


async def usage_of_inner(box: Box, reaper: Reaper) -> float:
    """CPU seconds of the process that bubblewrap left behind, and of all it waited for: bubblewrap itself does not
    account for it."""
    if box.status is None:
        return 0.0
    match = re.search(rb'"child-pid": (\d+)', _read_some(box.status).encode())
    ended = await reaper.orphan(int(match[1]), 0.25) if match else None
    return ended.cpu_s if ended else 0.0


def _complaint(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    return _read_some(process.stderr.fileno())


def _read_some(descriptor: int | None) -> str:
    if descriptor is None:
        return ""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(OSError):
        return os.read(descriptor, 2000).decode(errors="replace").strip()
    return ""
