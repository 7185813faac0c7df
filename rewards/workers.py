"""Child processes for work that may hang, crash or eat memory: killed at the deadline and replaced.

    run(item) ─► a free CPU's slot ─► an idle child, or a new one ─► result, or ChildFailure

A thread cannot be killed and a signal handler does not interrupt C code, so only a process bounds such work. Every
child has one item at a time and a channel of its own: a stuck item holds up nothing but itself. A slot is a CPU's worth
of running work: a child that sleeps gives its slot to the next item (`max_asleep` bounds how many), and since no more
children run than there are slots, a wall deadline means the same on a quiet pool and on one full of stuck items.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewards.zygote import HEADER
from services.schema.errors import ActorStartError

FIRST_LOOK_S = 0.004
"""A child busy for so long is looked at, again after as long, then ever more seldom: quick items cost no look."""
START_DEADLINE_S = 120.0
"""A child to be forked and to import its work."""


class ChildFailure(Exception):
    """A child could not do its item. `cause` is `cpu`, `deadline`, `memory`, `died`, `exception` or `start`."""

    def __init__(self, cause: str, text: str, *, retry: bool = True) -> None:
        super().__init__(cause, text)
        self.cause = cause
        self.text = text
        self.retry = retry
        self.seconds = 0.0
        """From the start of the work."""

    def __str__(self) -> str:
        return f"{self.cause}: {self.text}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for an item, and how long it took from the start of the work: waiting for a child is not in it."""

    result: Any
    seconds: float


class ChildPool:
    """Runs `resolve(target)(argument)(item)` in child processes.

    `target` is `module:factory`; the factory gets `argument` once a child and returns the function that is called with
    every item. Items and argument are pickled on their way in, results are JSON. What `preload` names is imported
    (`module`) or called (`module:function`) once, before children are forked; it must not start threads.

    `cpu_s` bounds the CPU time of an item, so that what it comes to does not depend on how busy the machine is;
    `deadline_s`, in wall seconds from the start of the work, is the backstop. What has used up either would do so
    again; any other failure is tried once more in another child.
    """

    def __init__(
        self,
        target: str,
        argument: Any = None,
        *,
        num_children: int,
        deadline_s: float,
        memory_bytes: int,
        cpu_s: float | None = None,
        max_asleep: int = 32,
        preload: Sequence[str] = (),
        items_per_child: int = 2000,
    ) -> None:
        self.target = target
        self.num_children = num_children
        self.deadline_s = deadline_s
        self.cpu_s = cpu_s
        self.max_asleep = max_asleep
        self.preload = tuple(preload)
        self.items_per_child = items_per_child
        self.counts: Counter[str] = Counter()
        """Items and failures so far: `items`, `retried`, `killed`, `forked` and one key a cause."""
        self._hello = pickle.dumps((argument, memory_bytes))
        self._zygote: _Zygote | None = None
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._running = 0
        self._taken = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Fork a first child now instead of with the first item. Raises ActorStartError when it is not fit for work."""
        if not self._idle:
            try:
                self._idle.append(await self._new_child())
            except ChildFailure as failure:
                raise ActorStartError(failure.text) from None

    async def run(self, item: Any, *, retry: bool = True) -> Reply:
        """The reply to one item. Raises ChildFailure; cancelling it kills the child."""
        if self._closed:
            raise ChildFailure("start", "the child pool is closed")
        self.counts["items"] += 1
        try:
            return await self._attempt(item)
        except ChildFailure as failure:
            self.counts[failure.cause] += 1
            if not (retry and failure.retry) or self._closed:
                raise
        self.counts["retried"] += 1
        try:
            return await self._attempt(item)
        except ChildFailure as failure:
            self.counts[failure.cause] += 1
            raise

    async def close(self) -> None:
        """End every child and the zygote. Items under way fail."""
        self._closed = True
        if self._watcher is not None:
            self._watcher.cancel()
        for child in (*self._idle, *self._busy):
            child.hang_up()
        self._idle.clear()
        if self._zygote is not None:
            await self._zygote.close()

    @property
    def num_asleep(self) -> int:
        """Children that hang without using a CPU."""
        return sum(child.asleep for child in self._busy)

    async def _attempt(self, item: Any) -> Reply:
        await self._take_slot()
        child: _Child | None = None
        try:
            child = self._idle.pop() if self._idle else await self._new_child()
            return Reply(await self._ask(child, item), child.elapsed())
        except ChildFailure as failure:
            failure.seconds = 0.0 if child is None else child.elapsed()
            raise
        finally:
            self._taken -= 1
            if child is None or not child.asleep:
                self._running -= 1
            self._admit()

    async def _ask(self, child: _Child, item: Any) -> Any:
        body = pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
        child.begin(asyncio.get_running_loop().time())
        self._busy.add(child)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())
        keep = False
        try:
            async with asyncio.timeout(self.deadline_s):
                reply = await child.exchange(body)
            keep = reply.get("cause") != "memory" and child.num_items < self.items_per_child
        except TimeoutError:
            text = f"no answer within {self.deadline_s:g} s of the start of the work"
            raise ChildFailure("deadline", text, retry=False) from None
        except (EOFError, OSError):
            if child.overdrawn:
                raise ChildFailure("cpu", f"no answer after {self.cpu_s:g} s of CPU", retry=False) from None
            raise ChildFailure("died", await self._epitaph(child)) from None
        finally:
            self._busy.discard(child)
            if keep and not self._closed:
                self._idle.append(child)
            else:
                self._kill(child)
        if "error" in reply:
            raise ChildFailure(reply["cause"], reply["error"])
        return reply["result"]

    async def _new_child(self) -> _Child:
        if self._zygote is None or not self._zygote.alive:
            self._zygote = _Zygote(self.target, self.preload)
        self.counts["forked"] += 1
        child = await self._zygote.fork()
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                hello = await child.exchange(self._hello)
            if "error" in hello:
                raise ChildFailure("start", f"{self.target} cannot be used: {hello['error']}")
        except BaseException as error:
            child.hang_up()
            if isinstance(error, TimeoutError):
                text = f"{self.target} was not ready within {START_DEADLINE_S:g} s"
                raise ChildFailure("start", text) from None
            if isinstance(error, EOFError | OSError):
                raise ChildFailure("start", f"the child for {self.target} died while it started") from None
            raise
        child.pid = hello["pid"]
        self._zygote.greet(child.pid)
        return child

    async def _epitaph(self, child: _Child) -> str:
        assert self._zygote is not None
        status = await self._zygote.exit_status(child.pid)
        if status is None:
            return "the child process went away"
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            return f"the child process was killed by {name}"
        return f"the child process ended itself with status {status}"

    def _kill(self, child: _Child) -> None:
        self.counts["killed"] += 1
        if self._zygote is not None:
            self._zygote.kill(child.pid)
        child.hang_up()

    async def _take_slot(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._taken -= 1
                self._running -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiters and self._running < self.num_children and self._taken < self.num_children + self.max_asleep:
            turn = self._waiters.popleft()
            if not turn.cancelled():
                self._running += 1
                self._taken += 1
                turn.set_result(None)

    async def _watch(self) -> None:
        """Find out which busy children sleep and which have used up their CPU time, as long as there are any."""
        while self._busy:
            await asyncio.sleep(FIRST_LOOK_S)
            now = asyncio.get_running_loop().time()
            for child in self._busy:
                if now < child.look_at:
                    continue
                if child.looks_asleep(now) != child.asleep:
                    child.asleep = not child.asleep
                    self._running += -1 if child.asleep else 1
                if self.cpu_s is not None and self._zygote is not None:
                    child.look_at = min(child.look_at, now + max(FIRST_LOOK_S, self.cpu_s - child.used_s))
                    if child.used_s >= self.cpu_s:
                        child.overdrawn = True
                        self._zygote.kill(child.pid)
            self._admit()


@dataclass(eq=False, slots=True)
class _Child:
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
    last: tuple[float, int] = (0.0, 0)

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
        """Send one frame and wait for the answer. Raises EOFError or OSError when the child is gone."""
        self.writer.write(HEADER.pack(len(body)))
        self.writer.write(body)
        await self.writer.drain()
        (length,) = HEADER.unpack(await self.reader.readexactly(HEADER.size))
        reply: dict[str, Any] = json.loads(await self.reader.readexactly(length))
        return reply

    def looks_asleep(self, now: float) -> bool:
        """Sleeping, and no CPU used since the last look."""
        state, total_s, ran_ns = _usage(self.pid)
        unchanged = self.first_s is not None and (total_s, ran_ns) == self.last
        self.first_s = total_s if self.first_s is None else self.first_s
        self.used_s = max(0.0, total_s - self.first_s)
        self.last = (total_s, ran_ns)
        self.look_at = now + min(max(FIRST_LOOK_S, 0.25 * (now - self.started_at)), 0.1)
        return unchanged and state in "SD"

    def hang_up(self) -> None:
        """Close the channel: an idle child ends itself."""
        self.writer.transport.abort()


class _Zygote:
    """The process that forks, kills and reaps the children."""

    def __init__(self, target: str, preload: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        code = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from rewards.zygote import main; "
        code += f"main({theirs.fileno()}, sys.argv[2], sys.argv[3:])"
        path = json.dumps([entry or os.getcwd() for entry in sys.path] + [os.getcwd()])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, path, target, *preload],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a reward prints must not end up between the caller's results
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C reaches the caller alone, who ends the children in order
                env={"OMP_NUM_THREADS": "1", **os.environ},
            )
        self.alive = True
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._control.fileno(), self._on_notice)

    async def fork(self) -> _Child:
        """A new child, not yet ready."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b'{"op": "fork"}'], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise ChildFailure("start", f"no child process could be forked: {error}") from None
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 26)
        return _Child(reader, writer)

    def greet(self, pid: int) -> None:
        """A child with this id lives: what is known of an earlier one is out of date."""
        self._exits.pop(pid, None)

    def kill(self, pid: int) -> None:
        """End a child and its process group; the zygote knows whether the id is still its own."""
        with contextlib.suppress(OSError):
            self._control.send(json.dumps({"op": "kill", "pid": pid}).encode())

    async def exit_status(self, pid: int) -> int | None:
        """How a child ended, as in `subprocess`; None when nobody knows."""
        if not self.alive:
            return None
        notice = self._exits.setdefault(pid, self._loop.create_future())
        try:
            return await asyncio.wait_for(asyncio.shield(notice), 1.0)
        except TimeoutError:
            return None

    async def close(self) -> None:
        """Let the zygote end its children and itself."""
        self._forget()
        try:
            await asyncio.to_thread(self._process.wait, 5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _on_notice(self) -> None:
        try:
            data = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._forget()
            self._process.poll()
            return
        notice = json.loads(data)
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


def _usage(pid: int) -> tuple[str, float, int]:
    """State letter, CPU seconds of all threads, nanoseconds that the main thread ran; `("X", 0, 0)` when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return "X", 0.0, 0
    ran_ns = 0
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/schedstat", "rb") as file:
        ran_ns = int(file.read().split()[0])  # not every kernel has it: then a look is as fine as a clock tick
    return fields[0].decode(), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), ran_ns
