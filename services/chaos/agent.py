"""The fault injector: a task of the driver, because only the driver knows to the millisecond what the run is doing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from rayzero.services.chaos.strikes import EPISODE_KINDS, KINDS, FaultLog
from rayzero.services.loop.activity import Phase
from rayzero.services.loop.group_buffer import GroupState
from rayzero.services.loop.run_control import RunControl
from rayzero.services.store.run_directory import write_atomically

POLL_S = 0.002
PATIENCE_S = 60.0
"""How long a phase is waited for before another kill is chosen, and how long a run may take to recover."""

DELAYS_S = {"generation": 0.4, "scoring": 0.004, "update": 0.3, "sync": 0.1, "checkpoint": 0.1}
"""A kill comes at a random moment within so many seconds of a phase's beginning; half of it whenever the phase was over
by then: a tiny model's update takes a tenth of a second."""

ENGINE_NAME = "VLLM"
"""What vLLM calls its engine's processes."""


class ChaosAgent:
    """Kills at random for `seconds` from the run's first update on, then stops the run."""

    def __init__(self, book: FaultLog, nodes: Path, end: Path, chance: random.Random, seconds: float) -> None:
        """`nodes` is a JSON list of the raylets that may be killed, kept up to date by the process that starts them;
        `end` is where the first driver writes down, for those that follow it, when the storm is over (Unix time)."""
        self.book, self.nodes, self.end, self.chance, self.seconds = book, nodes, end, chance, seconds
        self.delays_s = dict(DELAYS_S)

    async def attend(self, control: RunControl) -> None:
        """Runs beside the controller."""
        version = control.controller.buffer.version
        await self._progress(control, version)
        if not self.end.exists():
            write_atomically(self.end, str(time.time() + self.seconds))
        until_s = float(self.end.read_text(encoding="utf-8"))
        while time.time() < until_s:
            kinds = KINDS if control.controller.runner.episodes is None else (*KINDS, *EPISODE_KINDS)
            kind, phase = self.book.next(self.chance, kinds)
            version = control.controller.buffer.version
            if await self._strike(control, kind, phase):
                await self._progress(control, version)
                await asyncio.sleep(self.chance.uniform(0.0, 1.0))
        await control.stop()

    async def _progress(self, control: RunControl, version: int) -> None:
        """Until the run has made an update more: what the last kill broke is whole again."""
        give_up = time.monotonic() + PATIENCE_S
        while control.controller.buffer.version <= version and time.monotonic() < give_up:
            await asyncio.sleep(0.05)

    async def _strike(self, control: RunControl, kind: str, phase: str) -> bool:
        """Kill one `kind` in the middle of `phase`; False when it did not come to it."""
        if not await self._begins(control, phase):
            return False
        await asyncio.sleep(self.chance.uniform(0.0, self.delays_s[phase]))
        victims = self._victims(control, kind)
        if not _is_in(control, phase):
            self.delays_s[phase] /= 2
            return False
        if not victims:
            return False
        self.book.write(kind, phase, control.controller.buffer.version, victims)
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return True

    async def _begins(self, control: RunControl, phase: str) -> bool:
        """Wait for the phase; it must not have begun before, so that the delay counts from its beginning."""
        give_up = time.monotonic() + PATIENCE_S
        for wanted in (False, True):
            while _is_in(control, phase) is not wanted:
                if time.monotonic() > give_up:
                    return False
                await asyncio.sleep(POLL_S)
        return True

    def _victims(self, control: RunControl, kind: str) -> list[int]:
        """Process ids; several for a node, which goes down as a whole."""
        if kind == "driver":
            return [os.getpid()]
        if kind == "learner":
            return self._one_of([control.controller.learner.pid])
        if kind == "node":
            raylet = self._one_of(json.loads(self.nodes.read_text(encoding="utf-8")))
            return [*raylet, *(process.pid for pid in raylet for process in _descendants(pid))]
        workers = {
            "rollout": "rollout",
            "engine": "rollout",
            "reward": "reward",
            "sandbox": "reward",
            "environment": "environment",
            "episode": "environment",
        }
        pids = [worker.pid for worker in control.status().workers if worker.role == workers[kind]]
        if kind in ("rollout", "reward", "environment"):
            return self._one_of(pids)
        below = [process for pid in pids if pid is not None for process in _descendants(pid)]
        if kind == "engine":
            return self._one_of([process.pid for process in below if _name(process).startswith(ENGINE_NAME)])
        return self._one_of([process.pid for process in below if not _children(process)])

    def _one_of(self, pids: Sequence[int | None]) -> list[int]:
        living = [pid for pid in pids if pid is not None and psutil.pid_exists(pid)]
        return [self.chance.choice(living)] if living else []


def _is_in(control: RunControl, phase: str) -> bool:
    controller = control.controller
    states = {"generation": GroupState.GENERATING, "scoring": GroupState.SCORING}
    if phase in states:
        return any(entry.state is states[phase] for entry in controller.buffer.entries.values())
    return Phase(phase) in controller.activity.seconds()


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return list(process.children())
    return []


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()) or str(process.name())
    return ""
