"""Every child's end, in one place: the supervisor is a subreaper, so orphans of killed boxes arrive here too.

Without it each killed bubblewrap leaves a zombie for pid 1; in a container whose pid 1 does not reap they pile up
until no fork succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

PR_SET_CHILD_SUBREAPER = 36
MAX_ORPHANS = 256
"""Exit statuses of orphans that are kept for later questions."""


@dataclass(frozen=True)
class Ended:
    """A child that is gone."""

    status: int
    """As from wait(2)."""
    cpu_s: float
    """Of the child and of all descendants that were waited for."""
    memory_bytes: int


class Reaper:
    """Waits for children on SIGCHLD."""

    def __init__(self) -> None:
        """Become the subreaper; needs a running event loop in the main thread."""
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._known: dict[int, tuple[asyncio.Future[Ended], Callable[[], None]]] = {}
        self._orphans: OrderedDict[int, Ended] = OrderedDict()
        self._mourners: dict[int, asyncio.Future[Ended]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGCHLD, self.reap)

    def expect(self, pid: int, before: Callable[[], None] = lambda: None) -> asyncio.Future[Ended]:
        """A future of the child's end. `before` runs while its pid (and process group) cannot be reused yet."""
        future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._known[pid] = (future, before)
        self.reap()
        return future

    async def orphan(self, pid: int, deadline_s: float) -> Ended | None:
        """The end of a descendant that was handed to us when its parent went; None if none comes in time (the parent
        waited for it)."""
        if pid in self._orphans:
            return self._orphans.pop(pid)
        mourner = self._mourners.setdefault(pid, asyncio.get_running_loop().create_future())
        try:
            return await asyncio.wait_for(mourner, deadline_s)
        except TimeoutError:
            return None
        finally:
            self._mourners.pop(pid, None)
            self._orphans.pop(pid, None)

    def close(self) -> None:
        """Stop listening for children, before the loop closes."""
        self._loop.remove_signal_handler(signal.SIGCHLD)

    def reap(self) -> None:
        """Collect everyone who has ended."""
        with contextlib.suppress(ChildProcessError):
            while True:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if info is None:
                    return
                future, before = self._known.pop(info.si_pid, (None, None))
                if before is not None:
                    before()
                _, status, usage = os.wait4(info.si_pid, 0)
                ended = Ended(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
                if future is None:
                    future = self._mourners.get(info.si_pid)
                    self._orphans[info.si_pid] = ended
                    while len(self._orphans) > MAX_ORPHANS:
                        self._orphans.popitem(last=False)
                if future is not None and not future.done():
                    future.set_result(ended)
