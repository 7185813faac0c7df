"""Runs the steps: each in a process of its own, bounded, ended with all its children, independent of the others.

Standard library alone, so that it also says something where nothing else can be imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gpu.hour.context import PROFILE, RESULT, ROOT
from tests.gpu.hour.processes import MARK, end_marked
from tests.gpu.hour.report import Report, State
from tests.gpu.hour.steps import Device, Step

WORKER = "tests.gpu.hour.worker"
LOG = "log.txt"
POLL_S = 0.1
GRACE_S = 15.0
"""For what a step that has ended leaves behind to end by itself: the fork server of a CPU engine takes seconds."""
KEPT = {".json", ".jsonl", ".yaml", ".log", ".txt", ".xml"}
NOT_KEPT = {"checkpoints", "model"}
LARGEST_KEPT_BYTES = 2**20
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}
"""Nothing phones home, nothing waits for a network that is not there."""


@dataclass(slots=True)
class Attempt:
    """A step that is under way."""

    step: Step
    process: subprocess.Popen[bytes]
    begun_s: float
    give_up_s: float
    is_cut: bool
    """Whether `give_up_s` is the budget's end, and not the step's own deadline."""
    settled: bool = False
    """Whether it is over, and what became of it is noted."""


class Runner:
    """One run through a program's steps."""

    def __init__(self, report: Report, scratch: Path, budget_s: float) -> None:
        """The budget counts from here."""
        self.report, self.scratch, self.budget_s = report, scratch, budget_s
        self.device: Device = report.device
        self._begun_s = time.monotonic()

    def run(self, steps: Sequence[Step]) -> None:
        """Run them in order. A KeyboardInterrupt ends what is under way, which is noted, and is raised again."""
        for batch in self._batches(steps):
            running: list[Attempt] = []
            try:
                for step in batch:
                    if self._admits(step):
                        running.append(self._start(step))
                self._attend(running)
            except BaseException:
                for attempt in running:
                    if not attempt.settled:
                        self._settle(attempt, "interrupted", "it was cut off")
                raise
            for attempt in running:
                self._explain(attempt.step)

    @property
    def elapsed_s(self) -> float:
        """Of the budget."""
        return time.monotonic() - self._begun_s

    def _batches(self, steps: Sequence[Step]) -> Iterator[list[Step]]:
        """Steps that run side by side: on a GPU those of one `beside`, else one at a time."""
        batch: list[Step] = []
        for step in steps:
            together = self.device == "cuda" and batch and step.beside and step.beside == batch[-1].beside
            if batch and not together:
                yield batch
                batch = []
            batch.append(step)
        if batch:
            yield batch

    def _admits(self, step: Step) -> bool:
        """Whether there is a form of it for this device, and time; if not, that is noted."""
        if self.device == "cpu" and step.cpu_s is None:
            self._pass_over(step, "skipped", f"needs {step.needs}")
            return False
        estimate, gone = step.estimate_s(self.device), self.elapsed_s
        if gone + estimate <= self.budget_s:
            return True
        reason = f"its {estimate:.0f} s would pass the budget: {gone:.0f} of {self.budget_s:.0f} s are gone"
        self._pass_over(step, "left out", reason)
        return False

    def _pass_over(self, step: Step, state: State, reason: str) -> None:
        print(self.report.line(self.report.add(step, state, 0.0, reason, {})), flush=True)

    def _start(self, step: Step) -> Attempt:
        shutil.rmtree(self._folder(step), ignore_errors=True)  # of an earlier run into the same place
        return self._spawn(step, step.work, self._folder(step), step.deadline_s(self.device))

    def _spawn(self, step: Step, work: str, folder: Path, deadline_s: float) -> Attempt:
        folder.mkdir(parents=True, exist_ok=True)
        given = {"device": self.device, "folder": folder, "scratch": self.scratch / step.name}
        options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", WORKER, work, *options, "--models", str(self.scratch / "models")]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        with open(folder / LOG, "wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **QUIET, "PATH": path, "PYTHONPATH": str(ROOT), MARK: self._mark(step)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C comes to this process alone, which ends the step
            )
        now, left_s = time.monotonic(), max(self.budget_s - self.elapsed_s, 1.0)
        return Attempt(step, process, now, now + min(deadline_s, left_s), is_cut=left_s < deadline_s)

    def _attend(self, running: Sequence[Attempt]) -> None:
        while waiting := [attempt for attempt in running if not attempt.settled]:
            for attempt in waiting:
                if attempt.process.poll() is not None:
                    self._settle(attempt)
                elif time.monotonic() > attempt.give_up_s:
                    why = "when the budget was over" if attempt.is_cut else "and was ended"
                    allowed = attempt.give_up_s - attempt.begun_s
                    self._settle(attempt, "timed out", f"it was not done in {allowed:.0f} s, {why}")
            time.sleep(POLL_S)

    def _settle(self, attempt: Attempt, state: State | None = None, reason: str = "") -> None:
        """End what is left of it, read what it found, note it."""
        step, seconds = attempt.step, time.monotonic() - attempt.begun_s
        left = end_marked(self._mark(step), GRACE_S if state is None else 0.0)
        attempt.process.wait()
        result = self._result(step)
        self._keep(step)
        figures = dict(result.get("figures", {}))
        if state is None:
            figures |= {"processes_left_behind": left} if left else {}
            state, reason = self._verdict(attempt, result)
        print(self.report.line(self.report.add(step, state, seconds, reason, figures)), flush=True)
        attempt.settled = True

    def _verdict(self, attempt: Attempt, result: dict[str, Any]) -> tuple[State, str]:
        if "skipped" in result:
            return "skipped", result["skipped"]
        if "error" in result:
            return "failed", result["error"]
        code = attempt.process.returncode
        if code != 0 or "done" not in result:
            return "failed", f"its process ended with exit code {code}: {self._last_words(attempt.step)}"
        return "ok", ""

    def _explain(self, step: Step) -> None:
        """Where a step's time went that missed a target, if there is time to find out."""
        row = self.report.rows[step.name]
        if row.state != "ok" or not row.missed or not step.profile or self.elapsed_s + step.profile_s > self.budget_s:
            return
        attempt = self._spawn(step, step.profile, self._folder(step) / "profile", 2 * step.profile_s)
        try:
            while attempt.process.poll() is None and time.monotonic() < attempt.give_up_s:
                time.sleep(POLL_S)
        finally:
            end_marked(self._mark(step))
            attempt.process.wait()
            self._keep(step)
        file = self._folder(step) / "profile" / PROFILE
        if file.is_file():
            row.profile = str(file.relative_to(self.report.out))
            self.report.write()
        seconds = time.monotonic() - attempt.begun_s
        print(f"profile     {step.name:<12} {seconds:5.0f} s  {row.profile or 'none: see its log'}", flush=True)

    def _keep(self, step: Step) -> None:
        """Small files of its scratch go beside its result, the rest goes: models and checkpoints are gigabytes."""
        scratch, folder = self.scratch / step.name, self._folder(step)
        for file in sorted(scratch.rglob("*")):
            with contextlib.suppress(OSError):
                inside = file.relative_to(scratch)
                if file.suffix not in KEPT or NOT_KEPT & set(inside.parts) or not file.is_file():
                    continue
                if file.stat().st_size <= LARGEST_KEPT_BYTES:
                    target = folder / inside
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
        shutil.rmtree(scratch, ignore_errors=True)

    def _mark(self, step: Step) -> str:
        return f"{self.scratch}/{step.name}"

    def _folder(self, step: Step) -> Path:
        return self.report.out / step.name

    def _result(self, step: Step) -> dict[str, Any]:
        try:
            return dict(json.loads((self._folder(step) / RESULT).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def _last_words(self, step: Step) -> str:
        lines = (self._folder(step) / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
