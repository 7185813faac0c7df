"""A member's process, which gets the signals that its parent gets, and ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from rayzero.services.schema.errors import RayzeroError

END_S = 900.0
"""A run that was asked to stop finishes its update and saves first; after so long it is killed."""
KILLED_S = 30.0


class MemberProcess:
    """A process in a session of its own: a terminal's Ctrl-C reaches it through `send` alone, once."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: signal.Signals | None = None
        """What was sent before there was a process."""

    async def run(self, command: Sequence[str], log: Path) -> int:
        """Start it and wait for its end, its output in `log`; the exit code.

        Raises:
            RayzeroError: it cannot be started.
        """
        with open(log, "ab") as output:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
            except OSError as error:
                raise RayzeroError(f"{command[0]} cannot be started: {error.strerror}") from None
        try:
            if self._waiting is not None:
                self.send(self._waiting)
            return await self._process.wait()
        finally:
            await self._end()

    def send(self, number: signal.Signals) -> None:
        """Hand a signal on; to one that has ended it does nothing."""
        self._waiting = number
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _end(self) -> None:
        """No process is left behind, whatever ended the wait."""
        process = self._process
        assert process is not None
        if process.returncode is not None:
            return
        self.send(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_S)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.wait_for(process.wait(), KILLED_S)
