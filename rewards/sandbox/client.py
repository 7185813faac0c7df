"""The sandbox as the rest of rayzero sees it: an async client of one supervisor process, which it starts, watches and
replaces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayzero.rewards.sandbox import folders, frames, host, packages
from rayzero.rewards.sandbox.frames import job_frame
from rayzero.rewards.sandbox.guardian import TIDY_S
from rayzero.rewards.sandbox.limits import MIB, Limits, Outcome
from rayzero.rewards.sandbox.refusal import explain
from rayzero.services.schema.errors import RayzeroError
from rayzero.services.schema.import_root import IMPORT_ROOT

START_DEADLINE_S = 60.0
PRELOAD_DEADLINE_S = 300.0
"""Where the warm interpreter imports a large package first, on a machine that may be busy."""
SILENCE_DEADLINE_S = 30.0
"""A supervisor that does not answer a ping for so long is killed; what it was running is an infrastructure failure."""

_LOG = logging.getLogger(__name__)
_ENTRY = "import sys; sys.path.insert(0, {root!r}); from rayzero.rewards.sandbox.supervisor import main; main()"


class SandboxRefusedError(RayzeroError):
    """This machine cannot isolate a program; the message says why and what to do."""

    exit_code = 2

    def __init__(self, reasons: Mapping[str, str]) -> None:
        """`reasons`: why not, by backend."""
        super().__init__(explain(reasons))
        self.reasons = reasons


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """What a supervisor is started with; made from the recipe's section."""

    backend: str = "auto"
    python: str | None = None
    num_workers: int | None = None
    """Runs on the CPU at once; None: one a core."""
    tmp_bytes: int = 64 * MIB
    cache: str | None = field(default_factory=lambda: default_cache())
    preload: Sequence[str] = ()
    """`module:function` of the drivers', called once by the warm interpreter that boxes are forked from."""
    preload_packages: Sequence[str] = ()
    """Third-party packages that these need."""


def default_cache() -> str | None:
    """A folder for what is worth keeping between runs (a precompiled header), which boxes' users can reach; None
    without one."""
    home = Path("/var/cache") if os.geteuid() == 0 else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "rayzero"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid() or not os.access(folder, os.W_OK):
            return None
        folder.chmod(0o755)
    except (OSError, RuntimeError):
        return None
    return str(folder)


class Sandbox:
    """Runs programs. Use from one event loop; `close` ends the supervisor and everything in it."""

    def __init__(self, config: SandboxConfig) -> None:
        """Nothing starts before the first run (or `start`)."""
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[list[Outcome]]] = {}
        self._num_requests = 0
        self._starting = asyncio.Lock()
        self._copying = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._scratch = ""
        self.backend = ""
        """Which one holds here; known once started."""
        self.passed_over: Mapping[str, str] = {}
        """Those that `auto` would rather have taken, and why they do not hold."""

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the supervisor's guardian, while they run."""
        return (self._process.pid,) if self._process is not None else ()

    async def start(self) -> str:
        """Start the supervisor unless it runs; the backend's name. SandboxRefusedError where nothing isolates."""
        async with self._starting:
            if self._writer is None:
                await self._start()
        return self.backend

    async def packages(self, names: Sequence[str]) -> str:
        """Where boxes find these third-party packages; "" without any. PackageError where they cannot have them."""
        if not names:
            return ""
        await self.start()
        async with self._copying:
            key = await asyncio.to_thread(packages.provide, names, self._scratch, self._config.python)
        return f"/{host.PACKAGES}/{key}" if self.backend == "bwrap" else f"{self._scratch}/{host.PACKAGES}/{key}"

    async def python(self, job: Mapping[str, Any], limits: Limits, stdin: bytes = b"") -> Outcome:
        """Run one Python job (see inside/programs.py)."""
        header = {"kind": "python", "limits": limits.to_dict()}
        return (await self._ask(header, [job_frame(job), stdin]))[0]

    async def pair(
        self, program: Mapping[str, Any], test: Mapping[str, Any], limits: Limits
    ) -> tuple[Outcome, Outcome]:
        """Run a program's box and a test's box, linked. The program's outcome, then the test's."""
        blobs = [job_frame(program), job_frame(test)]
        outcomes = await self._ask({"kind": "pair", "limits": limits.to_dict()}, blobs)
        return outcomes[0], outcomes[-1]

    async def program(
        self, argv: Sequence[str], limits: Limits, *, stdin: bytes = b"", mounts: Mapping[str, str] | None = None,
        roots: Sequence[str] = (), files: Mapping[str, bytes] | None = None,
    ) -> Outcome:  # fmt: skip
        """Run another program. `mounts`: artifact key by the `{name}` that argv uses; `files` are shown under
        `{job}`."""
        files = files or {}
        header = {
            "kind": "program", "argv": list(argv), "limits": limits.to_dict(), "mounts": dict(mounts or {}),
            "roots": list(roots), "files": list(files),
        }  # fmt: skip
        return (await self._ask(header, [stdin, *files.values()]))[0]

    async def build(
        self, key: str, argv: Sequence[str], limits: Limits, *, output: str, files: Mapping[str, bytes],
        roots: Sequence[str] = (), mounts: Mapping[str, str] | None = None, keep: bool = False,
        tmp_bytes: int = 256 * MIB, beside: Mapping[str, str] | None = None,
    ) -> Outcome:  # fmt: skip
        """Keep what `argv` prints as file `output` of artifact `key`, unless it is there already. Code 0: it is there.

        `beside`: further files of the artifact, as names of `files`. `keep`: in the cache folder, for every
        supervisor of this user.
        """
        header = {
            "kind": "build", "key": key, "argv": list(argv), "limits": limits.to_dict(), "output": output, "roots":
            list(roots),
            "mounts": dict(mounts or {}), "files": list(files), "keep": keep,
            "tmp_bytes": tmp_bytes, "beside": dict(beside or {}),
        }  # fmt: skip
        return (await self._ask(header, list(files.values())))[0]

    async def release(self, keys: Sequence[str]) -> None:
        """Say that these artifacts are needed once less: each build that succeeded needs one release."""
        if keys and self._writer is not None:
            await self._ask({"kind": "release", "keys": list(keys)}, ())

    async def close(self) -> None:
        """End the supervisor, all boxes, and give back the scratch folder."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._stop("the sandbox was closed")

    async def _ask(self, header: dict[str, Any], blobs: Sequence[bytes]) -> list[Outcome]:
        await self.start()
        assert self._writer is not None
        self._num_requests += 1
        number = self._num_requests
        answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(frames.pack({**header, "id": number}, blobs))
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def _start(self) -> None:
        parent = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
        self._scratch = tempfile.mkdtemp(prefix="rayzero-sandbox-", dir=parent)
        os.chmod(self._scratch, 0o755)
        os.mkdir(os.path.join(self._scratch, host.PACKAGES), 0o755)
        # Looked up here: the supervisor's interpreter sees no installed package, and its environment no home.
        found = {"bwrap": host.find_bwrap(), "private": host.private_folders(), "home": host.home()}
        preloaded = {"preload_packages": await self._preloaded()}
        config = {**vars(self._config), **found, **preloaded, "scratch": self._scratch}
        ours, theirs = socket.socketpair()
        root = str(IMPORT_ROOT)
        command = [sys.executable, "-I", "-S", "-c", _ENTRY.format(root=root), json.dumps(config), str(theirs.fileno())]
        # An empty environment: what the supervisor has, a bug of its own could show to a box.
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")}, pass_fds=[theirs.fileno()], start_new_session=True,
        )  # fmt: skip
        theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        try:
            deadline_s = PRELOAD_DEADLINE_S if self._config.preload else START_DEADLINE_S
            hello, _ = await asyncio.wait_for(frames.read(reader), deadline_s)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            await self._stop("it did not start")
            raise SandboxRefusedError({self._config.backend: f"its supervisor did not start: {error!r}"}) from error
        if "refused" in hello:
            await self._stop("it refused")
            raise SandboxRefusedError(hello["refused"])
        self.backend, self.passed_over = hello["backend"], hello["passed_over"]
        if self.backend == "unsafe":
            _LOG.warning("sandbox: unsafe — programs run on this machine with resource limits only, without isolation")
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._receive(reader)), loop.create_task(self._ping())]

    async def _preloaded(self) -> str:
        """Copy the packages that the warm interpreter needs; the name of their folder."""
        wanted = self._config.preload_packages
        if not wanted:
            return ""
        try:
            return await asyncio.to_thread(packages.provide, wanted, self._scratch, self._config.python)
        except packages.PackageError as error:
            await self._stop("it has no packages")
            raise SandboxRefusedError({self._config.backend: str(error)}) from error

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                header, blobs = await frames.read(reader)
                outcomes = [
                    Outcome(
                        **summary, stdout=blobs[3 * index], result=blobs[3 * index + 1], stderr=blobs[3 * index + 2]
                    )
                    for index, summary in enumerate(header["outcomes"])
                ]
                answer = self._waiting.get(header["id"])
                if answer is not None and not answer.done():
                    answer.set_result(outcomes)
        except (asyncio.IncompleteReadError, ConnectionError):
            await self._stop("its supervisor died")

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(SILENCE_DEADLINE_S / 3)
            if self._writer is None:
                return
            try:
                await asyncio.wait_for(self._ask({"kind": "ping"}, ()), SILENCE_DEADLINE_S)
            except TimeoutError:
                if self._process is not None:
                    self._process.terminate()

    async def _stop(self, why: str) -> None:
        """Kill the supervisor (its boxes die with it) and fail what waits as the machine's fault."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._process is not None:
            await self._end_process(self._process)
            self._process = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_result([Outcome(ended="failed", detail=f"the sandbox failed: {why}")])
        if self._scratch:
            folders.remove(self._scratch)
            self._scratch = ""

    @staticmethod
    async def _end_process(process: subprocess.Popen[bytes]) -> None:
        # It ends by itself when the socket closes; SIGTERM has the guardian kill the supervisor and all that it left.
        for deadline_s, last_word in ((1.0, signal.SIGTERM), (TIDY_S, signal.SIGKILL)):
            give_up = time.monotonic() + deadline_s
            while time.monotonic() < give_up:
                if process.poll() is not None:
                    return
                await asyncio.sleep(0.025)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, last_word)
        await asyncio.to_thread(process.wait)
