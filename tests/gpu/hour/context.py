"""What a step is given, and how it says what it found: figures that are kept at once, and two ways to end early."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gpu.hour.steps import Device

RESULT = "result.json"
PROFILE = "profile.txt"
ROOT = Path(__file__).resolve().parents[3]
CLI = "rayzero"
"""rayzero's command line, as a module: `python -m` finds it wherever the checkout lies."""


class StepFailed(Exception):
    """The step ran and what it holds does not hold; the message says what was found."""


class NotHere(Exception):
    """The step cannot run on this machine; the message says what it lacks."""


@dataclass(slots=True)
class Context:
    """What a step is given, and where it puts what it finds."""

    device: Device
    folder: Path
    """Small files that are kept."""
    scratch: Path
    """Everything else; gone when the step is over."""
    models: Path
    """Models that steps make for one another; gone when all are over."""
    figures: dict[str, Any] = field(default_factory=dict)

    def note(self, **figures: Any) -> None:
        """Keep these figures, even if the step is killed in its next line."""
        self.figures |= {name: value for name, value in figures.items() if value is not None}
        self.write({})

    def write(self, rest: dict[str, Any]) -> None:
        """result.json, all of it or as it was."""
        figures = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in self.figures.items()
        }
        write_atomically(self.folder / RESULT, json.dumps({"figures": figures, **rest}, indent=2) + "\n")

    def run(self, command: Sequence[str], *, good: Sequence[int] = (0,)) -> str:
        """Run a Python module with its arguments; what it printed, which is in the step's log, too.

        Raises:
            StepFailed: its exit code is none of `good`.
        """
        print("$ python -m", *command, flush=True)
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            print(line, end="", flush=True)
        code = process.wait()
        if code not in good:
            said = [line.strip() for line in lines if line.strip()][-1:] or ["it said nothing"]
            raise StepFailed(f"{command[0]} ended with exit code {code}: {said[0]}")
        return "".join(lines)


def write_atomically(path: Path, text: str) -> None:
    """All of it or nothing: who reads while it is written, or after a kill, sees the old one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
