"""Boxes: one confined process each, started from a command line, killed and closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayzero.rewards.sandbox.bwrap import ENVIRONMENT
from rayzero.rewards.sandbox.folders import Folder
from rayzero.rewards.sandbox.reaper import Ended, Reaper
from rayzero.rewards.sandbox.stdin_file import StdinFile


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
    shares_count: bool = False
    """The kernel counts its processes together with all others of the user: the watch counts them by themselves."""
    folder: Folder | None = None
    """Its private folder, where no namespace gives it a /tmp; bounded by the watch."""
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
    folder: Folder | None = None,
    shares_count: bool = False,
) -> Box:
    """Start `command` as a box of which this process is the parent. `status`, `folder`, `shares_count`: see Box.
    `given`: its stdin, where the program does not wait for a job."""
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
    return Box(
        pid, pidfd, end, stdin, stdout, job, stderr, status, group=True, shares_count=shares_count, folder=folder,
        release=release,
    )  # fmt: skip


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
    match = re.search(rb'"child-pid": (\d+)', read_some(box.status).encode())
    ended = await reaper.orphan(int(match[1]), 0.25) if match else None
    return ended.cpu_s if ended else 0.0


def read_some(descriptor: int | None) -> str:
    """What can be read there without waiting: a complaint, for an error's words."""
    if descriptor is None:
        return ""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(OSError):
        return os.read(descriptor, 2000).decode(errors="replace").strip()
    return ""
