"""Child processes for work that may hang, crash or eat memory: killed at the deadline and replaced.

    run(item) ─► a free CPU's slot ─► an idle child, or a new one ─► result, or ChildFailure

A thread cannot be killed and a signal handler does not interrupt C code, so only a process bounds such work. Every
child has one item at a time and a channel of its own: a stuck item holds up nothing but itself. A slot is a CPU's worth
of running work: a child that sleeps gives its slot to the next item (`max_asleep` bounds how many), and since no more
children run than there are slots, a wall deadline means the same on a quiet pool and on one full of stuck items.
"""

from __future__ import annotations

import asyncio
import pickle
import signal
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rayzero.rewards.children.child import FIRST_LOOK_S, Child, ChildFailure, ForkServer
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.errors import ActorStartError

START_DEADLINE_S = 120.0
"""A child to be forked and to import its work."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for an item, and how long it took from the start of the work: waiting for a child is not in it."""

    result: Any
    seconds: float


class ChildPool:
    """Runs `resolve(target)(argument)(item)` in child processes.

    `target` is `module:factory`; the factory gets `argument` once a child and returns the function that is called with
    every item. Items and argument are pickled on their way in, results are JSON. The modules in `preload` are imported
    once, before children are forked; they must not start threads. `warm_up` names a generator function whose steps the
    fork server takes when children begin to be replaced, or, with `warm_first`, before it forks any.

    Children have no variable that looks like a secret, except those named in `environment`. `what` names the work in
    errors where the target is a name of ours.

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
        warm_up: str = "",
        warm_first: bool = False,
        items_per_child: int = 2000,
        environment: Sequence[str] = (),
        what: str = "",
    ) -> None:
        self.target = target
        self.what = what or target
        self.num_children = num_children
        self.deadline_s = deadline_s
        self.cpu_s = cpu_s
        self.max_asleep = max_asleep
        self.preload = tuple(preload)
        self.warm_up = warm_up
        self.warm_first = warm_first
        self.items_per_child = items_per_child
        self.environment = tuple(environment)
        self.counts: Counter[str] = Counter()
        """Items and failures so far: `items`, `retried`, `killed`, `forked` and one key a cause."""
        self._hello = pickle.dumps((argument, memory_bytes))
        self._fork_server: ForkServer | None = None
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
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
            raise ChildFailure(ErrorCause.START, "the child pool is closed")
        self.counts["items"] += 1
        body = pickled(item)
        try:
            return await self._attempt(body)
        except ChildFailure as failure:
            self.counts[failure.cause] += 1
            if not (retry and failure.retry) or self._closed:
                raise
        self.counts["retried"] += 1
        try:
            return await self._attempt(body)
        except ChildFailure as failure:
            self.counts[failure.cause] += 1
            raise

    async def close(self) -> None:
        """End every child and the fork server. Items under way fail."""
        self._closed = True
        if self._watcher is not None:
            self._watcher.cancel()
        for child in (*self._idle, *self._busy):
            child.hang_up()
        self._idle.clear()
        if self._fork_server is not None:
            await self._fork_server.close()

    async def _attempt(self, body: bytes) -> Reply:
        await self._take_slot()
        child: Child | None = None
        try:
            child = self._idle.pop() if self._idle else await self._new_child()
            return Reply(await self._ask(child, body), child.elapsed())
        except ChildFailure as failure:
            failure.seconds = 0.0 if child is None else child.elapsed()
            raise
        finally:
            self._taken -= 1
            if child is None or not child.asleep:
                self._running -= 1
            self._admit()

    async def _ask(self, child: Child, body: bytes) -> Any:
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
            raise ChildFailure(ErrorCause.DEADLINE, text, retry=False) from None
        except (EOFError, OSError):
            if child.overdrawn:
                raise ChildFailure(ErrorCause.CPU, f"no answer after {self.cpu_s:g} s of CPU", retry=False) from None
            raise ChildFailure(ErrorCause.DIED, await self._epitaph(child)) from None
        finally:
            self._busy.discard(child)
            if keep and not self._closed:
                self._idle.append(child)
            else:
                self._kill(child)
        if "error" in reply:
            raise ChildFailure(ErrorCause.read(reply["cause"]), reply["error"])
        return reply["result"]

    async def _new_child(self) -> Child:
        server = self._fork_server
        if server is None or not server.alive:
            dead = server
            server = ForkServer(self.target, self.preload, self.warm_up, self.warm_first, self.environment)
            self._fork_server = server
            if dead is not None:
                await dead.close()  # its socket and its place in the table of processes
        self.counts["forked"] += 1
        child = await server.fork()
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                hello = await child.exchange(self._hello)
            if "error" in hello:
                raise ChildFailure(ErrorCause.START, f"{self.what} cannot be used: {hello['error']}")
        except BaseException as error:
            child.hang_up()
            if isinstance(error, TimeoutError):
                text = f"{self.what} was not ready within {START_DEADLINE_S:g} s"
                raise ChildFailure(ErrorCause.START, text) from None
            if isinstance(error, EOFError | OSError):
                raise ChildFailure(ErrorCause.START, f"the child for {self.target} died while it started") from None
            raise
        child.pid = hello["pid"]
        server.greet(child.pid)
        return child

    async def _epitaph(self, child: Child) -> str:
        assert self._fork_server is not None
        status = await self._fork_server.exit_status(child.pid)
        if status is None:
            return "the child process went away"
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            return f"the child process was killed by {name}"
        return f"the child process ended itself with status {status}"

    def _kill(self, child: Child) -> None:
        self.counts["killed"] += 1
        if self._fork_server is not None:
            self._fork_server.kill(child.pid)
        child.hang_up()

    async def _take_slot(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._admit()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._taken -= 1
                self._running -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiters and self._running < self.num_children and self._taken < self.num_children + self.max_asleep:
            waiter = self._waiters.popleft()
            if not waiter.cancelled():
                self._running += 1
                self._taken += 1
                waiter.set_result(None)

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
                if self.cpu_s is not None and self._fork_server is not None:
                    child.look_at = min(child.look_at, now + max(FIRST_LOOK_S, self.cpu_s - child.used_s))
                    if child.used_s >= self.cpu_s:
                        child.overdrawn = True
                        self._fork_server.kill(child.pid)
            self._admit()


def pickled(item: Any) -> bytes:
    """ChildFailure for what a row holds and no child can be given, as a list nested a thousand times."""
    try:
        return pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
    except (RecursionError, pickle.PicklingError, TypeError, ValueError, AttributeError) as error:
        text = f"no child can be given it: {type(error).__name__}: {error}"
        raise ChildFailure(ErrorCause.BAD_PROMPT, text, retry=False) from None
