"""What an agent writes: shown in the worker's log up to a bound, its end kept, and never waited for.

Runs in the process of an episode, as the agent's parent.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

from rayzero.rewards.sandbox.processes import scan, tree

LOG_BYTES = 16 * 1024
"""Of each of the two streams of one episode that the log shows."""
TAIL_BYTES = 64 * 1024
CHUNK = 64 * 1024
"""What a pipe holds."""


class AgentStreams:
    """Standard output and error of one agent, and the pipe on which a function's result comes."""

    def __init__(self, label: str) -> None:
        """`label`: what each line in the log begins with."""
        self._read_out, self.write_out = os.pipe()
        self._read_error, self.write_error = os.pipe()
        self._read_result, self._write_result = os.pipe()
        self._out, self._error = _Shown(label), _Shown(label)
        self.result = b""
        """What `reply` wrote, as far as a pipe holds."""

    @property
    def last_line(self) -> str:
        """The last of standard output that is not empty."""
        lines = self._out.tail.decode("utf-8", "replace").rstrip().splitlines()
        return lines[-1] if lines else ""

    def enter(self) -> None:
        """In the forked agent: its standard streams are these from here on."""
        nothing = os.open(os.devnull, os.O_RDONLY)
        for ours, standard in ((nothing, 0), (self.write_out, 1), (self.write_error, 2)):
            os.dup2(ours, standard)

    def reply(self, body: bytes) -> None:
        """In the forked agent: what it returned; at most what a pipe holds."""
        with contextlib.suppress(OSError):
            os.write(self._write_result, body[:CHUNK])

    def supervise(self, pid: int) -> int:
        """Read what is written until the process ends; its status, negative for a signal. Others that still hold the
        pipes are not waited for."""
        for written in (self.write_out, self.write_error, self._write_result):
            os.close(written)
        takes = {self._read_out: self._out.take, self._read_error: self._error.take, self._read_result: self._keep}
        poller, ended = select.poll(), os.pidfd_open(pid)
        for read in (*takes, ended):
            poller.register(read, select.POLLIN)
        while True:
            for read, _ in poller.poll():
                if read == ended:
                    break
                data = os.read(read, CHUNK)
                if data:
                    takes[read](data)
                else:
                    poller.unregister(read)
            else:
                continue
            break
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for read, take in takes.items():
            os.set_blocking(read, False)
            with contextlib.suppress(BlockingIOError):
                take(os.read(read, CHUNK))
        self._out.end()
        self._error.end()
        return status

    def _keep(self, data: bytes) -> None:
        self.result = (self.result + data)[:CHUNK]


class _Shown:
    """One stream."""

    def __init__(self, label: str) -> None:
        self.tail = b""
        self._label, self._room, self._line = label.encode(), LOG_BYTES, b""

    def take(self, data: bytes) -> None:
        """What was written next."""
        self.tail = (self.tail + data)[-TAIL_BYTES:]
        if self._room <= 0:
            return
        shown, self._room = data[: self._room], self._room - len(data)
        *lines, self._line = (self._line + shown).split(b"\n")
        if self._room <= 0:
            lines += [self._line, b"[the log shows no more of it]"]
            self._line = b""
        self._log(lines)

    def end(self) -> None:
        """The last line, which ends with nothing."""
        if self._line:
            self._log([self._line])
            self._line = b""

    def _log(self, lines: list[bytes]) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end an episode
            os.write(2, b"".join(self._label + line + b"\n" for line in lines))


def end_the_rest() -> None:
    """End all that this process's children left behind, wherever they went: as a subreaper it has them all."""
    own = os.getpid()
    for _ in range(100):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for process in tree(scan(), own):
            if process.pid != own:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process.pid, signal.SIGKILL)
