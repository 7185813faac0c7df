"""What is killed, in which phase, and what was killed so far: one JSON line a kill, written before it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from rayzero.services.store.json_lines import append_lines, read_lines

KINDS = ("rollout", "engine", "reward", "sandbox", "learner", "driver", "node")
"""A rollout actor; its engine's own process; a reward actor; a child that runs what it judges; the learner; the driver
with the whole control plane; a Ray node with all that lives on it."""

EPISODE_KINDS = ("environment", "episode")
"""Where a run has episodes: an environment worker; the process of one episode."""

PHASES = ("generation", "scoring", "update", "sync", "checkpoint")


class FaultLog:
    """The kills of one storm, shared by the drivers that follow each other."""

    def __init__(self, file: Path) -> None:
        """`file` need not exist."""
        self.file = file

    def write(self, kind: str, phase: str, version: int, victims: Sequence[int]) -> None:
        """Note a kill that is about to happen."""
        append_lines(self.file, [{"kind": kind, "phase": phase, "version": version, "pids": list(victims)}])

    def rows(self) -> list[dict[str, Any]]:
        """Every kill so far, in order."""
        return read_lines(self.file)

    def counts(self) -> Counter[tuple[str, str]]:
        """Kills by (kind, phase)."""
        return Counter((row["kind"], row["phase"]) for row in self.rows())

    def next(self, chance: random.Random, kinds: Sequence[str] = KINDS) -> tuple[str, str]:
        """One of the pairs that had the fewest kills."""
        counts = self.counts()
        pairs = [(kind, phase) for kind in kinds for phase in PHASES]
        fewest = min(counts[pair] for pair in pairs)
        return chance.choice([pair for pair in pairs if counts[pair] == fewest])

    def table(self) -> Table:
        """Kinds down, phases across."""
        counts = self.counts()
        table = Table(title=f"{sum(counts.values())} kills")
        table.add_column("killed, in the middle of")
        for phase in PHASES:
            table.add_column(phase, justify="right")
        killed = {kind for kind, _ in counts}
        for kind in (*KINDS, *(kind for kind in EPISODE_KINDS if kind in killed)):
            table.add_row(kind, *(str(counts[kind, phase]) for phase in PHASES))
        return table
