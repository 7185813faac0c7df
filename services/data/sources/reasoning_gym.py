"""Rows of a reasoning-gym task, made as they are asked for: the same row at the same place, by the task's seed. The
entry travels along, so that the task's own scorer can judge the answer."""

from __future__ import annotations

import difflib
import importlib
import json
import sys
from types import ModuleType
from typing import Any

from rayzero.services.data.sources.rows import Row
from rayzero.services.data.sources.table import RowTable
from rayzero.services.schema.config.data import ReasoningGymSource
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.extras import require

KEPT_ROWS = 64
"""The first that were made: a run's start looks at the same ones several times."""
PLOTTING = (
    "matplotlib", "matplotlib.pyplot", "matplotlib.animation", "matplotlib.collections",
    "mpl_toolkits", "mpl_toolkits.mplot3d",
)  # fmt: skip


def read(settings: ReasoningGymSource) -> RowTable:
    """The task's questions, the same for the same settings.

    Raises:
        NotInstalled: the package is missing.
        RecipeError: it cannot be imported, or knows no such task or parameter.
    """
    require("reasoning_gym")
    try:
        _import_without_plotting()
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise RecipeError(
            f"reasoning-gym task {settings.task}: {error}. make setup installs what it needs; its module pycosat is "
            "compiled, so a C compiler must be there (make setup-system)"
        ) from None
    if settings.task not in DATASETS:
        close = difflib.get_close_matches(settings.task, DATASETS, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(DATASETS))}"
        raise RecipeError(f"reasoning-gym has no task {settings.task!r}; {hint}")
    try:
        entries = reasoning_gym.create_dataset(
            settings.task, size=settings.num_prompts, seed=settings.seed, **settings.parameters
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise RecipeError(f"reasoning-gym task {settings.task}: parameters {settings.parameters}: {error}") from None
    return Puzzles(settings, entries)


class Puzzles(RowTable):
    """One task's entries."""

    is_made = True

    def __init__(self, settings: ReasoningGymSource, entries: Any) -> None:
        """`entries`: reasoning-gym's own data set, which makes the entry of an index when it is asked for."""
        self._settings = settings
        self._entries = entries
        self._kept: dict[int, Row] = {}

    def __len__(self) -> int:
        return self._settings.num_prompts

    def __getitem__(self, index: int) -> Row:
        if index in self._kept:
            return self._kept[index]
        settings, entry = self._settings, self._entries[index]
        row = Row(
            number=index + 1,
            origin=f"reasoning-gym task {settings.task}, entry {index + 1}",
            values={
                settings.columns.prompt: entry["question"],
                settings.columns.answer or "answer": entry["answer"],
                "reasoning_gym_task": settings.task,
                # As text: metadata may hold objects that no other process can unpickle.
                "reasoning_gym_entry": json.dumps(entry, default=str),
            },
        )
        if len(self._kept) < KEPT_ROWS:
            self._kept[index] = row
        return row


def _import_without_plotting() -> None:
    """Half of the time of importing reasoning-gym is matplotlib's, which a library of one task could draw with: empty
    modules stand in for it meanwhile. Where they do not do, the caller imports all of it."""
    if "matplotlib" in sys.modules or "reasoning_gym" in sys.modules:
        return
    before, stands_in = set(sys.modules), {name: ModuleType(name) for name in PLOTTING}
    for name, module in stands_in.items():
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(stands_in[parent], own, module)
    stands_in["mpl_toolkits.mplot3d"].Axes3D = object  # type: ignore[attr-defined]
    sys.modules.update(stands_in)
    try:
        importlib.import_module("reasoning_gym")
    except ImportError:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("reasoning_gym", "cellpylib"):
                del sys.modules[name]
    finally:
        for name in PLOTTING:
            del sys.modules[name]
