"""A child process and the fork server that makes it, seen from the pool. What runs inside them is fork_server.py."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from rayzero.rewards.children.control import ControlReader, control_pair, packed
from rayzero.rewards.children.environment import without_secrets
from rayzero.rewards.children.fork_server import HEADER
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.other_python import OtherPython

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
UNKNOWN = "?"
MAX_REPLY_BYTES = 64 * 2**20
"""Of one reply: what a child sends beyond it would fill the memory of the process that judges."""
FIRST_LOOK_S = 0.004
"""A child busy for so long is looked at, again after as long, then ever more seldom: quick items cost no look."""


class ChildFailure(Exception):
    """A child could not do its item."""

    def __init__(self, cause: ErrorCause, text: str, *, retry: bool = True) -> None:
        super().__init__(cause, text)
        self.cause = cause
        self.text = text
        self.retry = retry
        self.seconds = 0.0
        """From the start of the work."""

    def __str__(self) -> str:
        return f"{self.cause}: {self.text}"


@dataclass(eq=False, slots=True)
class Child:
    """One child process, seen from the pool."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    pid: int = 0
    num_items: int = 0
    asleep: bool = False
    look_at: float = 0.0
    started_at: float = 0.0
    overdrawn: bool = False
    first_s: float | None = None
    """CPU seconds at the first look at this item."""
    used_s: float = 0.0
    """CPU seconds that this item has used since."""
    last_s: float = 0.0

    def begin(self, now: float) -> None:
        """A new item starts."""
        self.num_items += 1
        self.asleep = False
        self.started_at = now
        self.look_at = now + FIRST_LOOK_S
        self.first_s = None
        self.used_s = 0.0

    def elapsed(self) -> float:
        """Wall seconds since the item started."""
        return asyncio.get_running_loop().time() - self.started_at

    async def exchange(self, body: bytes) -> dict[str, Any]:
        """Send one frame and wait for the answer. Raises EOFError or OSError when the child is gone, or floods."""
        self.writer.write(HEADER.pack(len(body)) + body)
        await self.writer.drain()
        (length,) = HEADER.unpack(await self.reader.readexactly(HEADER.size))
        if length > MAX_REPLY_BYTES:
            raise OSError(errno.EMSGSIZE, f"it sent {length} bytes, and {MAX_REPLY_BYTES} is the most")
        reply: dict[str, Any] = json.loads(await self.reader.readexactly(length))
        return reply

    def looks_asleep(self, now: float) -> bool:
        """Sleeping, and no CPU used since the last look, if there was one: who computes is not asleep at the first."""
        state, total_s = usage_of(self.pid)
        if state == UNKNOWN:  # no /proc: all of its time counts as computing, so that one which hangs is ended
            self.used_s = now - self.started_at
            self.look_at = now + 0.1
            return False
        unchanged = self.first_s is None or total_s == self.last_s
        self.first_s = total_s if self.first_s is None else self.first_s
        self.used_s = max(0.0, total_s - self.first_s)
        self.last_s = total_s
        asleep = unchanged and state in "SD"
        self.look_at = now + min(max(FIRST_LOOK_S, 0.25 * (now - self.started_at)), 0.4 if asleep else 0.1)
        return asleep

    def hang_up(self) -> None:
        """Close the channel: an idle child ends itself."""
        self.writer.transport.abort()


class ForkServer:
    """The process that forks, kills and reaps the children."""

    def __init__(
        self,
        target: str,
        preload: Sequence[str],
        warm_up: str,
        warm_first: bool,
        environment: Collection[str] = (),
        python: OtherPython | None = None,
    ) -> None:
        """`environment`: variables that children get although they look like secrets. `python`: which one runs it; it
        is given the file of `target`'s module, which must import nothing of rayzero. Raises OSError if it cannot be
        started."""
        variables = {"OMP_NUM_THREADS": "1", **without_secrets(os.environ, environment)}
        self._control, theirs = control_pair()
        arguments = [str(theirs.fileno()), target, warm_up, "1" if warm_first else "", *preload]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    _own(arguments) if python is None else _other(python, arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # what a reward prints must not end up between the caller's results
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C reaches the caller alone, who ends the children in order
                    env=variables if python is None else python.environment(variables),
                )
            except OSError:
                self._control.close()
                raise
        self._notices = ControlReader(self._control)
        self._control.setblocking(False)
        self.alive = True
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._control.fileno(), self._on_notice)

    @property
    def pid(self) -> int:
        """Of the process that forks."""
        return self._process.pid

    async def fork(self) -> Child:
        """A new child, not yet ready."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [packed({"op": "fork"})], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise ChildFailure(ErrorCause.START, f"no child process could be forked: {error}") from None
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 26)
        return Child(reader, writer)

    def greet(self, pid: int) -> None:
        """A child with this id lives: what is known of an earlier one is out of date."""
        self._exits.pop(pid, None)

    def kill(self, pid: int) -> None:
        """End a child and its process group; the fork server knows whether the id is still its own."""
        with contextlib.suppress(OSError):
            self._control.send(packed({"op": "kill", "pid": pid}))

    async def exit_status(self, pid: int) -> int | None:
        """How a child ended, as in `subprocess`; None when it is not known."""
        if not self.alive:
            return None
        notice = self._exits.setdefault(pid, self._loop.create_future())
        try:
            return await asyncio.wait_for(asyncio.shield(notice), 1.0)
        except TimeoutError:
            return None

    async def close(self) -> None:
        """Let the fork server end its children and itself."""
        self._forget()
        try:
            await asyncio.to_thread(self._process.wait, 5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _on_notice(self) -> None:
        try:
            received = self._notices.read()
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._forget()
            self._process.poll()
            return
        for notice in received[0]:
            known = self._exits.setdefault(notice["exit"], self._loop.create_future())
            if not known.done():
                known.set_result(notice["status"])
        while len(self._exits) > 256:
            self._exits.pop(next(iter(self._exits)))

    def _forget(self) -> None:
        if self.alive:
            self.alive = False
            self._loop.remove_reader(self._control.fileno())
            self._control.close()


def _own(arguments: Sequence[str]) -> list[str]:
    code = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    code += "from rayzero.rewards.children.fork_server import main; "
    code += "main(int(sys.argv[2]), *sys.argv[3:6], sys.argv[6:])"
    path = json.dumps([entry or os.getcwd() for entry in sys.path] + [os.getcwd()])
    return [sys.executable, "-c", code, path, *arguments]


def _other(python: OtherPython, arguments: Sequence[str]) -> list[str]:
    server = "rayzero.rewards.children.fork_server"
    modules = ("rayzero.rewards.children.control", server, arguments[1].partition(":")[0])
    return python.command(
        modules, f"sys.modules[{server!r}].main(int(sys.argv[3]), *sys.argv[4:7], sys.argv[7:])", *arguments
    )


def usage_of(pid: int) -> tuple[str, float]:
    """State letter and CPU seconds of all threads, to the clock tick; `("X", 0)` when it is gone.

    `UNKNOWN` where the system does not say.
    """
    if sys.platform != "linux":
        return UNKNOWN, 0.0
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return "X", 0.0
    return fields[0].decode(), (int(fields[11]) + int(fields[12])) / TICKS_PER_S
