"""A plain outside killer: SIGKILL to processes of a run's own tree at random, the driver started again each time.

    python -m tests.outside_killer RUN_DIR MINUTES [SEED]

It knows nothing of the run but its process tree: engines, learner, reward workers and their children, Ray's own
processes and the driver all die as chance has it. Afterwards the run is stopped as a user would stop it, and audited.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

RECIPE = "deploy/recipes/tiny_addition.yaml"
CHANGES = (
    "training.num_updates=1000000",
    "training.groups_per_update=4",
    "training.group_size=4",
    "cold_start.num_updates=30",
    "learner.optimizer.decay=constant",
    "evaluation.every_updates=0",
    "evaluation.num_prompts=8",
    "evaluation.greedy=never",
    "checkpoint.every_updates=2",
    "rollout.num_workers=1",
    "reward.num_workers=1",
    "rollout.max_num_seqs=32",
    "deadlines.sync_s=60",
    "model.dtype=float32",
)
PAUSE_S = (3.0, 25.0)
"""Between two kills."""
STOP_S = 900.0
"""For the last driver to recover, finish its update, save and end."""


@dataclass(slots=True)
class Storm:
    """What was killed, and how the run stood it."""

    kills: Counter[str] = field(default_factory=Counter)
    num_drivers: int = 0
    ends: list[int] = field(default_factory=list)
    """Exit codes of drivers that ended by themselves, though nothing had stopped them."""
    stopped_with: int | None = None


def storm(run_dir: Path, minutes: float, seed: int, log: Path, say: bool = False) -> Storm:
    """Kill for so many minutes from the first update on, then stop the run."""
    chance, seen = random.Random(seed), Storm()
    command = [sys.executable, "-m", "rayzero", "train", RECIPE, *CHANGES, "--run-dir", str(run_dir)]
    process = _start(command, log, seen)
    end_s = None
    try:
        while end_s is None or time.monotonic() < end_s:
            time.sleep(chance.uniform(*PAUSE_S))
            if process.poll() is not None:
                seen.ends.append(process.returncode)
                process = _start(command, log, seen)
                continue
            if end_s is None:
                if not (run_dir / "metrics.jsonl").is_file():
                    continue
                end_s = time.monotonic() + 60 * minutes
            victim = chance.choice(_tree(process.pid))
            name = _kill(victim, process.pid)
            seen.kills[name] += 1
            if say:
                print(f"{time.strftime('%X')} {name}", flush=True)
            if victim == process.pid:
                process.wait()
                process = _start(command, log, seen)
        seen.stopped_with = _stop(process, command, log, seen)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return seen


def _stop(process: subprocess.Popen[bytes], command: list[str], log: Path, seen: Storm) -> int | None:
    """SIGTERM once there is an update in hand; the exit code, None where it does not end."""
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(60)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    return None


def _start(command: list[str], log: Path, seen: Storm) -> subprocess.Popen[bytes]:
    seen.num_drivers += 1
    with log.open("ab") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)


def _tree(pid: int) -> list[int]:
    """The driver and every process below it."""
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return [pid]
    return [pid, *(process.pid for process in below)]


def _kill(victim: int, driver: int) -> str:
    """SIGKILL; what it was, in a word."""
    try:
        process = psutil.Process(victim)
        words = " ".join(process.cmdline())[:200] or process.name()
        os.kill(victim, signal.SIGKILL)
    except (psutil.Error, ProcessLookupError):
        return "gone already"
    if victim == driver:
        return "driver"
    for name in (
        "LearnerActor",
        "RolloutActor",
        "RewardActor",
        "gcs_server",
        "raylet",
        "EngineCore",
        "fork_server",
        "IDLE",
    ):
        if name in words:
            return name
    return Path(words.split()[0]).name if words.split() else "?"


def main() -> int:
    """The command."""
    run_dir, minutes = Path(sys.argv[1]), float(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}", flush=True)
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    seen = storm(run_dir, minutes, seed, run_dir.parent / "driver.out", say=True)
    print(
        json.dumps(
            {"kills": seen.kills, "drivers": seen.num_drivers, "ends": seen.ends, "stopped_with": seen.stopped_with}
        )
    )
    return subprocess.run([sys.executable, "-m", "rayzero", "audit", str(run_dir)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
