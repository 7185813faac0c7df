"""`rayzero train`, and beside it a killer: the engine's process gets SIGKILL inside a broadcast, once.

    python -m tests.gpu.hour.killer train RECIPE [KEY=VALUE]… --run-dir DIR

The kill comes when the learner begins to send the third version: the engine has been asked to receive it, and the
learner waits for it. RUN/strike.json says what was killed, and how many engines were replaced by the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil

from rayzero.services.fleet.learner_supervisor import LearnerSupervisor
from rayzero.services.loop.run_control import RunControl
from rayzero.services.run.run import train
from rayzero.services.schema.errors import RayzeroError
from tests.gpu.hour.loops import STRIKE

VERSION = 2
"""Whose broadcast is struck: every buffer has been used once, every handle been exported."""
ENGINE_NAME = "VLLM"
"""What vLLM calls its engine's processes."""


class Killer:
    """A run's sidecar."""

    def __init__(self) -> None:
        """It has not struck yet."""
        self.control: RunControl | None = None
        self.killed: list[int] = []

    async def attend(self, control: RunControl) -> None:
        """Wait, for as long as the run goes on, inside the learner's own `broadcast_weights`."""
        self.control = control
        send = LearnerSupervisor.broadcast_weights  # of the class: the call's line in the table

        async def broadcast(supervisor: LearnerSupervisor) -> int:
            if not self.killed and control.controller.buffer.version == VERSION - 1:
                self.killed = engines(control)
                for pid in self.killed:
                    os.kill(pid, signal.SIGKILL)
            return await supervisor.take(send)

        LearnerSupervisor.broadcast_weights = broadcast  # type: ignore[assignment]
        try:
            await asyncio.Event().wait()
        finally:
            del LearnerSupervisor.broadcast_weights  # the inherited one is seen again

    def told(self) -> dict[str, Any]:
        """What came of it."""
        replaced = 0 if self.control is None else self.control.status().restarts["rollout"]
        return {"version": VERSION, "killed": self.killed, "replaced": replaced}


def engines(control: RunControl) -> list[int]:
    """The engine's own processes: they hold the model; their worker is another, and learns of their death."""
    workers = [worker.pid for worker in control.status().workers if worker.role == "rollout" and worker.pid is not None]
    below = [process for pid in workers for process in psutil.Process(pid).children(recursive=True)]
    return [process.pid for process in below if " ".join(process.cmdline()).startswith(ENGINE_NAME)]


def main(arguments: list[str]) -> int:
    """The exit code of the run."""
    _, recipe, *changes, _, run = arguments
    killer = Killer()
    code = train(Path(recipe), changes, Path(run).parent, Path(run), fresh=False, sidecar=killer.attend)
    (Path(run) / STRIKE).write_text(json.dumps(killer.told()) + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RayzeroError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
