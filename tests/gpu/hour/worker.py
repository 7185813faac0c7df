"""In a step's own process: runs its function; what it found, or why it failed, ends up in result.json.

python -m tests.gpu.hour.worker tests.gpu.hour.engine:alone --device cuda --folder OUT --scratch TMP --models TMP
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.gpu.hour.context import Context, NotHere, StepFailed


def main(arguments: Sequence[str] | None = None) -> int:
    """0: done; 1: failed, with the reason in result.json and the traceback in the log."""
    parser = argparse.ArgumentParser(description="One step of the first hour.")
    parser.add_argument("work", help="module:function")
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    for name in ("folder", "scratch", "models"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args(arguments)
    context = Context(given.device, given.folder, given.scratch, given.models)
    for folder in (given.folder, given.scratch, given.models):
        folder.mkdir(parents=True, exist_ok=True)
    module, _, function = given.work.partition(":")
    try:
        getattr(importlib.import_module(module), function)(context)
    except NotHere as reason:
        context.write({"skipped": str(reason)})
        return 0
    except Exception as error:
        traceback.print_exc()
        name = "" if isinstance(error, StepFailed) else f"{type(error).__name__}: "
        context.write({"error": f"{name}{error}".strip()})
        return 1
    context.write({"done": True})
    return 0


if __name__ == "__main__":
    sys.exit(main())
