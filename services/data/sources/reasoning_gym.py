"""Rows of a reasoning-gym task. The entry travels along, so that the task's own scorer can judge the answer."""

from __future__ import annotations

import difflib
import json

from rayzero.services.data.sources.rows import Row, Rows
from rayzero.services.schema.config.data import ReasoningGymSource
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.extras import require


def read(settings: ReasoningGymSource) -> Rows:
    """The generated questions, the same for the same settings.

    Raises:
        NotInstalled: the package is missing.
        RecipeError: it cannot be imported, or knows no such task or parameter.
    """
    require("reasoning_gym")
    try:
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
    for number in range(1, settings.num_prompts + 1):
        entry = entries[number - 1]
        yield Row(
            number=number,
            origin=f"reasoning-gym task {settings.task}, entry {number}",
            values={
                settings.columns.prompt: entry["question"],
                settings.columns.answer or "answer": entry["answer"],
                "reasoning_gym_task": settings.task,
                # As text: metadata may hold objects that no other process can unpickle.
                "reasoning_gym_entry": json.dumps(entry, default=str),
            },
        )
