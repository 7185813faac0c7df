"""The tasks of a taskset of verifiers, as rows for `environment: {kind: verifiers}`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from rayzero.services.data.tasks.numbers import Row
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.other_python import OtherPython

WORK = "rayzero.rewards.environments.verifiers_work"
VERSION = "0.4.0"


def tasks(
    python: str,
    taskset: str,
    num_prompts: int = 1000,
    first: int = 0,
    arguments: Mapping[str, Any] | None = None,
    folder: str | None = None,
) -> Iterator[Row]:
    """The tasks from `first` on, fewer where the taskset has no more. `python`, `taskset`, `arguments` and `folder` as
    in the recipe's environment. Columns: `messages`, `answer` (empty where a task has none), `verifiers_task`.

    Raises:
        RecipeError: the Python, verifiers in it, or the taskset is not there, or fails.
    """
    other = OtherPython(python, (os.getcwd(), *((folder,) if folder else ())))
    if fault := other.fault("verifiers", VERSION):
        raise RecipeError(f"verifiers:tasks: python: {fault}")
    spec = {"taskset": taskset, "arguments": dict(arguments or {}), "first": first, "number": num_prompts}
    call = f"sys.modules[{WORK!r}].print_rows(sys.argv[3])"
    command = other.command((WORK,), call, json.dumps(spec))
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=other.environment(os.environ)
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                row = json.loads(line)
                if "error" in row:
                    raise RecipeError(f"verifiers:tasks: the taskset {taskset} cannot be read: {row['error']}")
                yield row
        finally:
            process.kill()  # a taskset may have tasks without end
    if process.returncode not in (0, -9):
        raise RecipeError(f"verifiers:tasks: {python} ended with status {process.returncode} in the taskset {taskset}")
