"""`rayzero chaos`: a real run on a local Ray cluster of several nodes, with kills at random, and the audit after it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import psutil

from rayzero.services.chaos.driver import BOOK, NODES
from rayzero.services.chaos.nodes import RESOURCE, LocalNodes
from rayzero.services.chaos.strikes import FaultLog
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.terminal import terminal
from rayzero.services.store.ledger import audit, print_audit

GRACE_S = 900.0
"""To start before the first kill, and to recover and stop after the last; a run that takes longer hangs: a failure."""

CHANGES = (
    "training.num_updates=1000000",
    "rollout.num_workers=2",
    "reward.num_workers=2",
    "evaluation.every_updates=0",
    "evaluation.num_prompts=8",
    "evaluation.greedy=never",
    "checkpoint.every_updates=3",
    "deadlines.sync_s=60",
)
"""Before the user's own: a run that does not end by itself, saves often and has spare workers to take over."""

STOPPED = 130


def run(recipe: Path, overrides: Sequence[str], minutes: float, seed: int, num_nodes: int, as_json: bool) -> int:
    """Storm for `minutes`, audit, print kills by kind and phase; 0 when nothing was lost, doubled or hung.

    Raises:
        RecipeError: the recipe is refused.
    """
    console = terminal(stderr=as_json)
    folder = Path(tempfile.mkdtemp(prefix="rayzero-storm-"))
    run_dir = folder / "run"
    everywhere = f"{{{RESOURCE}: 1}}"
    roles = ["rollout", "reward", "learner"]
    own = list(CHANGES)
    if load_recipe(recipe, overrides).environment is not None:
        roles.append("environment")
        own.append("environment.num_workers=2")
    placed = [f"cluster.{role}_resources={everywhere}" for role in roles]
    with LocalNodes(num_nodes, folder / NODES, folder / "nodes.log") as nodes:
        changes = [*own, *overrides, *placed, f"cluster.address={nodes.address}"]
        load_recipe(recipe, changes)
        console.print(f"storm over {recipe} for {minutes:g} min on {num_nodes} nodes; all of it is in {folder}")
        command = [str(run_dir), str(60 * minutes), str(seed), str(recipe), *changes]
        code, num_drivers = _drive(command, nodes, folder, time.time() + 60 * minutes + GRACE_S)
    book, found = FaultLog(folder / BOOK), audit(run_dir)
    if as_json:
        kills = [{"kind": kind, "phase": phase, "kills": number} for (kind, phase), number in book.counts().items()]
        print(json.dumps({"kills": kills, "drivers": num_drivers, "exit_code": code, "audit": asdict(found)}))
    console.print(book.table())
    print_audit(console, found)
    if code != STOPPED:
        console.print(f"the run ended with exit code {code}; its output is in {folder / 'driver.log'}", style="red")
    return 0 if found.is_sound and code == STOPPED else 1


def _drive(command: list[str], nodes: LocalNodes, folder: Path, give_up_s: float) -> tuple[int, int]:
    """Start the driver, and again whenever it was killed; its last exit code, and how many there were."""
    num_drivers = 0
    while True:
        num_drivers += 1
        with open(folder / "driver.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "rayzero.services.chaos.driver", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            code = _attend(process, nodes, give_up_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if code != -signal.SIGKILL or time.time() > give_up_s:
            return code, num_drivers


def _attend(process: subprocess.Popen[bytes], nodes: LocalNodes, give_up_s: float) -> int:
    """Until the driver ends: replace nodes that were killed, and end it when it hangs."""
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            nodes.tend()
        if time.time() > give_up_s:
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
    return int(process.returncode)
