"""One run: feed a box, collect what it writes, end it at a limit, say how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO

from rayzero.rewards.sandbox.boxes import Box, BoxError
from rayzero.rewards.sandbox.limits import Limits, Outcome
from rayzero.rewards.sandbox.processes import anonymous_bytes, cpu_seconds

CHUNK_BYTES = 1 << 16
MAX_STDERR_BYTES = 1 << 14
MAX_WALL_LIMITS = 3.5
"""How many wall limits a run may take on a machine too busy to run it."""


class Run:
    """A box at work."""

    def __init__(
        self, box: Box, limits: Limits, *, parked: Callable[[], None] = lambda: None, sink: BinaryIO | None = None
    ) -> None:
        """Nothing happens before `work`. `parked` is called if the run is found asleep; `sink` takes stdout, which is
        then not in the outcome."""
        self.box = box
        self.limits = limits
        self.park = parked
        self._sink = sink
        self.started = 0.0
        self.base_cpu_s = 0.0
        """What starting the box had cost before the job was handed over."""
        self.base_memory_bytes = 0
        """What a box holds before its program does anything; shared with all that it forks."""
        self.seen_cpu_s = 0.0
        """CPU of the whole tree as last measured by the watch."""
        self.is_parked = False
        self.starvation: Callable[[], str] = lambda: ""
        """Asked at the wall limit: why it says nothing about the program, or nothing."""
        self._ended_by = ""
        self._detail = ""
        self._stdout = bytearray()
        self._result = bytearray()
        self._stderr = bytearray()

    async def work(self, frame: bytes | None, stdin: bytes, link: socket.socket | None = None) -> Outcome:
        """Hand over the job with its `stdin`, wait for the end, whichever way it comes. Always returns within the wall
        limit and a little. Without a `frame` the program runs already and has its stdin."""
        loop = asyncio.get_running_loop()
        self.started = time.monotonic()
        if frame is not None:
            self.base_cpu_s = cpu_seconds(self.box.pid)
            self.base_memory_bytes = anonymous_bytes(self.box.pid)
        self._alarm = loop.call_later(self.limits.wall_s, self._wall, loop)
        try:
            self._attach(loop)
            if frame is not None:
                self.box.stdin.fill(stdin)
                await self._hand_over(loop, frame, link)
            ended = await asyncio.shield(self.box.end)
        except (BoxError, OSError) as error:
            return Outcome(ended="failed", wall_s=time.monotonic() - self.started, detail=str(error))
        finally:
            self._alarm.cancel()
            if not self.box.end.done():
                self.box.kill()
            self._detach(loop)
        wall_s = time.monotonic() - self.started
        self._drain()
        code = -os.WTERMSIG(ended.status) if os.WIFSIGNALED(ended.status) else os.WEXITSTATUS(ended.status)
        cpu_s = max(ended.cpu_s - self.base_cpu_s, self.seen_cpu_s)
        return Outcome(
            ended=self._verdict(cpu_s, ended.memory_bytes), code=code, cpu_s=cpu_s, wall_s=wall_s,
            memory_bytes=ended.memory_bytes,
            detail=self._detail, stdout=bytes(self._stdout), result=bytes(self._result), stderr=bytes(self._stderr),
        )  # fmt: skip

    def end(self, why: str, detail: str = "") -> None:
        """Kill the box; the first reason counts."""
        if not self._ended_by and not self.box.end.done():
            self._ended_by, self._detail = why, detail
            self.box.kill()

    def with_cpu(self, outcome: Outcome, more_cpu_s: float) -> Outcome:
        """The outcome with CPU added that the box's own end did not count."""
        cpu_s = max(outcome.cpu_s + more_cpu_s, self.seen_cpu_s)
        return replace(
            outcome,
            cpu_s=cpu_s,
            ended="cpu" if outcome.ended == "exited" and cpu_s > self.limits.cpu_s else outcome.ended,
        )

    def _wall(self, loop: asyncio.AbstractEventLoop) -> None:
        """The wall limit ends what sleeps; what stood ready without a core gets more time, up to a point."""
        why = self.starvation()
        if why and time.monotonic() - self.started < MAX_WALL_LIMITS * self.limits.wall_s:
            self._alarm = loop.call_later(self.limits.wall_s, self._wall, loop)
        else:
            self.end("starved" if why else "wall", why)

    def _verdict(self, cpu_s: float, memory_bytes: int) -> str:
        if cpu_s > self.limits.cpu_s and self._ended_by in ("", "wall", "cpu"):
            return "cpu"
        if self._ended_by in ("", "exited"):  # "exited": the end of its test ended a program that served it
            inherited = _inherited_bytes() if self.box.group else 0  # the zygote is small, and its boxes call no exec
            if memory_bytes > max(self.limits.memory_bytes, inherited):
                return "memory"
            if self.box.folder is not None and self.box.folder.is_full():
                return "files"  # the watch looks rarely where looking is dear: filling a folder must not outrun it
        return self._ended_by or "exited"

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        box = self.box
        sources = [(box.stdout, self._stdout, self.limits.output_bytes)]
        if box.job is not None:
            sources.append((box.job.fileno(), self._result, self.limits.output_bytes))
        if box.stderr is not None:
            sources.append((box.stderr, self._stderr, MAX_STDERR_BYTES))
        for descriptor, buffer, cap in sources:
            os.set_blocking(descriptor, False)
            loop.add_reader(descriptor, self._receive, loop, descriptor, buffer, cap)

    def _detach(self, loop: asyncio.AbstractEventLoop) -> None:
        descriptors = [self.box.stdout, self.box.stderr]
        if self.box.job is not None:
            descriptors.append(self.box.job.fileno())
        for descriptor in descriptors:
            if descriptor is not None and descriptor >= 0:
                loop.remove_reader(descriptor)
                loop.remove_writer(descriptor)

    def _receive(self, loop: asyncio.AbstractEventLoop, descriptor: int, buffer: bytearray, cap: int) -> None:
        try:
            chunk = os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            loop.remove_reader(descriptor)
        self._keep(buffer, chunk, cap)

    def _keep(self, buffer: bytearray, chunk: bytes, cap: int) -> bool:
        """Whether there was room for all of it."""
        if buffer is self._stdout and self._sink is not None:
            try:
                self._sink.write(chunk)
                self._sink.flush()
            except OSError as error:  # a disk that is full; what was cut off there must never pass for whole
                self._ended_by, self._detail = "failed", f"cannot keep what was built: {error}"
                self.box.kill()
                return True
            fits = self._sink.tell() <= cap
        else:
            buffer += chunk
            fits = len(buffer) <= cap
            del buffer[cap:]
        if not fits and buffer is not self._stderr:
            self.end("output")
        return fits

    def _drain(self) -> None:
        """What was still in the pipes when the box ended; a descendant that holds them open cannot make this wait."""
        box = self.box
        sources = [(box.stdout, self._stdout), (box.stderr, self._stderr)]
        if box.job is not None:
            sources.append((box.job.fileno(), self._result))
        for descriptor, buffer in sources:
            cap = MAX_STDERR_BYTES if buffer is self._stderr else self.limits.output_bytes
            fits = True
            with contextlib.suppress(OSError):
                while fits and descriptor is not None and (chunk := os.read(descriptor, CHUNK_BYTES)):
                    fits = self._keep(buffer, chunk, cap)
            if not fits and buffer is not self._stderr:
                self._ended_by = self._ended_by or "output"

    async def _hand_over(self, loop: asyncio.AbstractEventLoop, frame: bytes, link: socket.socket | None) -> None:
        assert self.box.job is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if link is not None:
                socket.send_fds(self.box.job, [frame[:4]], [link.fileno()])
                link.close()  # while a copy of ours is open, neither box sees the other go
                frame = frame[4:]
            await loop.sock_sendall(self.box.job, frame)


def _inherited_bytes() -> int:
    """What Linux counts as a child's peak memory before its program has begun: the peak of this process, whose memory
    a new process shares until it calls exec. No program may be judged by that."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
