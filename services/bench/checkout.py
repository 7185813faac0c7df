"""The benchmarks that only a checkout has: they lie in its folder benchmarks/, which no wheel holds."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("all", "gallery", "learning", "page", "pipeline", "scale", "time-to-reward")
"""The commands of benchmarks/commands.py."""
NEEDED = (
    f"rayzero bench {', '.join(NAMES[:-1])} and {NAMES[-1]} need a checkout of rayzero, with `make setup`: what "
    "simulates or compares with other trainers is not in the wheel"
)


def find(module: str, root: Path = ROOT) -> ModuleType | None:
    """`benchmarks.<module>`; None where rayzero was installed from a wheel.

    The folder beside these sources alone is looked at: another package may be called benchmarks, too.
    """
    if not (root / "benchmarks" / "commands.py").is_file():
        return None
    if str(root) not in sys.path:
        # An editable install knows the installed packages only. First, as others have a folder benchmarks, too; then
        # last: what a user calls rewards.py is not to be that folder of the checkout.
        sys.path.insert(0, str(root))
        importlib.import_module("benchmarks")
        sys.path.append(sys.path.pop(0))
    return importlib.import_module(f"benchmarks.{module}")
