"""The process that owns every box: started small, subreaper, in a session of its own; stdlib only.

It is spoken to over one socket (frames.py) and ends, with all its boxes, when that socket closes. It holds programs
and their inputs, never an expected output. Requests, by `kind`:

    python   one job in a Python box                    blobs: job frame, stdin
    pair     a program box and a test box on one link   blobs: program job, test job
    program  another program in a box                   blobs: stdin, then files shown as `{job}`
    build    a program whose stdout becomes an artifact, mountable by its key; built once     blobs: files
    release  the artifacts of a program that has its verdict
    ping, info
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from rayzero.rewards.sandbox import controls, folders, frames, host, selftest
from rayzero.rewards.sandbox.artifacts import Artifacts
from rayzero.rewards.sandbox.backends import BACKENDS, Backend, Bwrap, NoBackendError, Preload, Program
from rayzero.rewards.sandbox.box_monitor import BoxMonitor, starved
from rayzero.rewards.sandbox.boxes import Box, BoxError, usage_of_inner
from rayzero.rewards.sandbox.cgroup import SLACK_BYTES, Groups, MemoryGroup
from rayzero.rewards.sandbox.gate import Gate
from rayzero.rewards.sandbox.guardian import stand_guard
from rayzero.rewards.sandbox.limits import MIB, Limits, Outcome
from rayzero.rewards.sandbox.makers import BoxMaker
from rayzero.rewards.sandbox.reaper import Reaper
from rayzero.rewards.sandbox.runs import Run

_BOX_OVERHEAD_BYTES = 16 * MIB


class Supervisor:
    """Serves one client."""

    def __init__(self, config: dict[str, Any], scratch: str) -> None:
        """`config`: backend, python, num_workers, tmp_bytes, cache, preload, preload_packages, bwrap, private, home."""
        self._config = config
        self._scratch = scratch
        self._reaper = Reaper()
        self._watch = BoxMonitor()
        self._groups = Groups.find()
        cores = len(os.sched_getaffinity(0))
        slots = 2 * (
            config["num_workers"] or cores
        )  # two a core: one that begins to sleep leaves no core idle meanwhile
        self._gate = Gate(slots, host.available_bytes() // 2)
        self._num_warm = max(1, slots // 2)
        self._warm: list[Box] = []
        self._refilling: asyncio.Task[None] | None = None
        self._builds: dict[str, asyncio.Task[Outcome]] = {}
        self._artifacts = Artifacts(scratch, config["cache"])
        self._num_jobs = 0
        self._backend: Backend | None = None
        self._boxes: BoxMaker | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.passed_over: dict[str, str] = {}
        """Backends that do not hold here, and why."""

    async def open(self) -> str:
        """Choose the backend by trying each on itself; its name. NoBackendError where none holds."""
        wanted = self._config["backend"]
        names = ["bwrap", "landlock"] if wanted == "auto" else [wanted]
        means = host.Means(**{name: self._config[name] for name in ("python", "bwrap", "tmp_bytes", "private")})
        for name in names:
            folder = os.path.join(self._scratch, name)
            os.mkdir(folder, 0o755)
            try:
                self._backend = BACKENDS[name](self._reaper, folder, means)
                self._backend.preload = Preload(
                    functions=self._config["preload"], packages=self._config["preload_packages"]
                )
                self._boxes = await self._first_boxes(self._backend)
                if name != "unsafe":
                    await selftest.attack(self, self._config["home"], name, runs_programs=not self._config["preload"])
                return name
            except (BoxError, OSError) as error:
                self.passed_over[name] = str(error)
                self._close_boxes()
        raise NoBackendError(self.passed_over)

    async def _first_boxes(self, backend: Backend) -> BoxMaker:
        makers = [backend.python_boxes()]
        if isinstance(backend, Bwrap) and not backend.preload.functions:
            makers.append(backend.launched_boxes())
        for maker in makers:
            try:
                self._warm.append(await maker.make(0))
                return maker
            except BoxError as error:
                reason = error
                maker.close()
        raise reason

    def _close_boxes(self) -> None:
        if self._refilling is not None:
            self._refilling.cancel()
        for box in self._warm:
            box.kill()
            box.close()
        self._warm.clear()
        if self._boxes is not None:
            self._boxes.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the client hangs up."""
        try:
            while True:
                header, blobs = await frames.read(reader)
                task = asyncio.get_running_loop().create_task(self._answer(header, blobs, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    def close(self) -> None:
        """End every box and give the machine back what was taken."""
        self._close_boxes()
        if self._backend is not None:
            self._backend.roots.close()
        self._reaper.close()
        if self._groups is not None:
            self._groups.close()

    async def _answer(self, header: dict[str, Any], blobs: list[bytes], writer: asyncio.StreamWriter) -> None:
        try:
            outcomes = await self._do(header, blobs)
        except (BoxError, OSError) as error:
            outcomes = [Outcome(ended="failed", detail=str(error))]
        except Exception as error:
            outcomes = [Outcome(ended="failed", detail=f"{type(error).__name__}: {error}")]
        parts: list[bytes] = []
        summaries = []
        for outcome in outcomes:
            parts += [outcome.stdout, outcome.result, outcome.stderr]
            summaries.append(asdict(replace(outcome, stdout=b"", result=b"", stderr=b"")))
        for summary in summaries:
            for name in ("stdout", "result", "stderr"):
                del summary[name]
        with contextlib.suppress(ConnectionError):
            writer.write(frames.pack({"id": header["id"], "outcomes": summaries}, parts))
            await writer.drain()

    async def _do(self, header: dict[str, Any], blobs: list[bytes]) -> Sequence[Outcome]:
        kind = header["kind"]
        if kind == "python":
            limits = Limits(**header["limits"])
            return [await self._checked(await self.python(limits, blobs[0], blobs[1]), limits)]
        if kind == "pair":
            return await self._pair(Limits(**header["limits"]), blobs[0], blobs[1])
        if kind == "program":
            limits = Limits(**header["limits"])
            return [await self._checked(await self._program(header, limits, blobs[0], blobs[1:]), limits)]
        if kind == "build":
            return [await self._build(header, blobs)]
        if kind == "release":
            for key in header["keys"]:
                self._artifacts.release(key)
            return []
        return [Outcome(ended="exited", detail=self._backend.name if self._backend else "")]

    async def take(self) -> Box:
        """A ready box; another is made meanwhile."""
        assert self._boxes is not None
        while self._warm:
            box = self._warm.pop()
            if not box.end.done():
                break
            box.close()
        else:
            box = await self._boxes.make(0)
        if self._refilling is None or self._refilling.done():
            self._refilling = asyncio.get_running_loop().create_task(self._refill())
        return box

    async def _refill(self) -> None:
        assert self._boxes is not None
        with contextlib.suppress(BoxError):  # the next run that finds no box says why
            while len(self._warm) < self._num_warm:
                self._warm.append(await self._boxes.make(0))

    async def python(self, limits: Limits, frame: bytes, stdin: bytes) -> Outcome:
        """One Python job."""
        place = await self._gate.enter(limits.memory_bytes + _BOX_OVERHEAD_BYTES)
        try:
            return await self._run(Run(await self.take(), limits, parked=place.park), frame, stdin)
        finally:
            place.leave()

    async def _run(
        self, run: Run, frame: bytes | None, stdin: bytes, link: socket.socket | None = None, beside: Run | None = None
    ) -> Outcome:
        """`beside`: the run that this one waits for; its lack of a core is this one's."""
        run.starvation = lambda: starved(run) or (starved(beside) if beside else "")
        self._watch.add(run)
        group = self._hold(run)
        try:
            if frame is not None and self._backend is not None:
                frame = frames.job_frame(self._backend.rlimits(run.limits)) + frame
            outcome = await run.work(frame, stdin, link)
            inner = await usage_of_inner(run.box, self._reaper)
            outcome = run.with_cpu(outcome, inner) if inner else outcome
            past_limit = group is not None and outcome.ended == "exited" and group.has_killed()
            return replace(outcome, ended="memory") if past_limit else outcome
        finally:
            if group is not None and self._groups is not None:
                self._groups.give_back(group)
            self._watch.remove(run)
            if not run.box.end.done():
                with contextlib.suppress(BoxError, TimeoutError):
                    await asyncio.wait_for(asyncio.shield(run.box.end), 5)
            run.box.close()

    def _hold(self, run: Run) -> MemoryGroup | None:
        """The kernel's own limit on the run's memory, where there is one."""
        if self._groups is None:
            return None
        group = self._groups.take()
        try:
            group.hold(run.box.pid, run.limits.memory_bytes + self._config["tmp_bytes"] + SLACK_BYTES)
        except OSError:
            self._groups.give_back(group)
            return None
        return group

    async def _pair(self, limits: Limits, program: bytes, test: bytes) -> Sequence[Outcome]:
        """The program answers, the test asks; the test's end is the run's end."""
        place = await self._gate.enter(2 * (limits.memory_bytes + _BOX_OVERHEAD_BYTES))
        ours, theirs = socket.socketpair()
        try:
            asked, asking = Run(await self.take(), limits), Run(await self.take(), limits)
            answering = asyncio.create_task(self._run(asked, program, b"", ours))
            outcome = asyncio.create_task(self._run(asking, test, b"", theirs, asked))
            done = await outcome
            asked.end("exited")
            return [await answering, done]
        finally:
            for end in (ours, theirs):
                end.close()
            place.leave()

    async def _program(
        self, header: dict[str, Any], limits: Limits, stdin: bytes, files: list[bytes], sink: BinaryIO | None = None
    ) -> Outcome:
        assert self._backend is not None
        place = await self._gate.enter(limits.memory_bytes + _BOX_OVERHEAD_BYTES)
        self._num_jobs += 1
        folder = os.path.join(self._backend.scratch, f"job-{self._num_jobs}")
        try:
            mounts = {name: self._artifacts.find(key) for name, key in header["mounts"].items()}
            if files:
                os.mkdir(folder, 0o755)
                for name, content in zip(header["files"], files, strict=True):
                    Path(folder, name).write_bytes(content)
                mounts["job"] = folder
            program = Program(
                argv=header["argv"], mounts=mounts, roots=header["roots"], tmp_bytes=header.get("tmp_bytes", 0)
            )
            box = self._backend.start_program(program, limits, stdin)
            return await self._run(Run(box, limits, parked=place.park, sink=sink), None, b"")
        finally:
            place.leave()
            if files:
                shutil.rmtree(folder, ignore_errors=True)

    async def _checked(self, outcome: Outcome, limits: Limits) -> Outcome:
        """A run that complains of the machine, and whose complaint a control shares, says nothing of the program."""
        if not controls.complains(outcome):
            return outcome
        argv, own = controls.control(limits)
        if controls.is_fine(await self._program({"argv": argv, "mounts": {}, "roots": []}, own, b"", [])):
            return outcome
        return replace(outcome, ended="failed", detail="the machine has no more processes or disk for programs")

    async def _build(self, header: dict[str, Any], files: list[bytes]) -> Outcome:
        """Build once; who asks meanwhile waits for the same build. Failures of the machine are forgotten."""
        key = header["key"]
        try:
            self._artifacts.find(key)
            outcome = Outcome(ended="exited")
        except BoxError:
            if key not in self._builds:
                self._builds[key] = asyncio.create_task(self._build_now(header, files))
            try:
                outcome = await asyncio.shield(self._builds[key])
            finally:
                self._builds.pop(key, None)
        if outcome.ended == "exited" and outcome.code == 0:
            self._artifacts.hold(key)
        return outcome

    async def _build_now(self, header: dict[str, Any], files: list[bytes]) -> Outcome:
        outcome = await self._try_to_build(header, files)
        if controls.complains(outcome):  # what only then was short may be there by now
            outcome = await self._try_to_build(header, files)
        return await self._checked(outcome, Limits(**header["limits"]))

    async def _try_to_build(self, header: dict[str, Any], files: list[bytes]) -> Outcome:
        folder = self._artifacts.begin(keep=bool(header.get("keep")))
        try:
            target = folder / header["output"]
            target.parent.mkdir(parents=True, exist_ok=True)
            # Not through memory: a precompiled header of 100 MB would stay in this process's peak.
            with open(target, "wb") as sink:
                outcome = await self._program(header, Limits(**header["limits"]), b"", files, sink=sink)
            if outcome.ended == "exited" and outcome.code == 0:
                given = dict(zip(header["files"], files, strict=True))
                beside = {name: given[source] for name, source in header.get("beside", {}).items()}
                self._artifacts.publish(folder, header["key"], header["output"], beside)
            return outcome
        finally:
            shutil.rmtree(folder, ignore_errors=True)


async def _main(config: dict[str, Any], channel: int) -> None:
    scratch = config["scratch"]
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=channel), limit=1 << 20)
    supervisor = Supervisor(config, scratch)
    try:
        try:
            name = await supervisor.open()
        except NoBackendError as error:
            writer.write(frames.pack({"id": 0, "refused": error.reasons}))
            await writer.drain()
            return
        writer.write(frames.pack({"id": 0, "backend": name, "passed_over": supervisor.passed_over}))
        await supervisor.serve(reader, writer)
    finally:
        supervisor.close()
        folders.remove(scratch)


def main() -> None:
    """Entry point of the process. argv: JSON config, number of the client's socket."""
    stand_guard()
    asyncio.run(_main(json.loads(sys.argv[1]), int(sys.argv[2])))
