"""The driver of a storm: `rayzero train` with the agent beside it. Started by services/chaos/storm.py, again and again.

python -m services.chaos.driver RUN_DIR SECONDS SEED RECIPE [KEY=VALUE]...
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from rayzero.services.chaos.agent import ChaosAgent
from rayzero.services.chaos.strikes import FaultLog
from rayzero.services.run.run import train
from rayzero.services.schema.errors import RayzeroError
from rayzero.services.schema.printable import printable

BOOK, NODES, END = "strikes.jsonl", "nodes.json", "end"
"""Beside the run directory: kills, raylets that may be killed, and when the storm is over."""


def main(run_dir: Path, seconds: float, seed: int, recipe: Path, overrides: list[str]) -> int:
    """The exit code of the run."""
    book = FaultLog(run_dir.parent / BOOK)
    # Each driver goes on with other random numbers: the same ones would kill it at the same place for ever.
    chance = random.Random(f"{seed} {len(book.rows())}")
    agent = ChaosAgent(book, run_dir.parent / NODES, run_dir.parent / END, chance, seconds)
    return train(recipe, overrides, run_dir.parent, run_dir, fresh=False, sidecar=agent.attend)


if __name__ == "__main__":
    folder, duration, number, path, *changes = sys.argv[1:]
    try:
        sys.exit(main(Path(folder), float(duration), int(number), Path(path), changes))
    except RayzeroError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
