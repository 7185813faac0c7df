"""Supervised updates, of a cold start and of a pipeline's stage: demonstrations through the learner that GRPO uses.

    (prompt, completion) ─► tokens ─► batches in the seed's order ─► learner.sft_step ─► a row of figures an update

Rate, temperature and moments are the learner's affair (learner/update/sft.py). What is resumed makes the same batches
as what was never interrupted: the order follows from the seed alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rayzero.services.data.mix_order import MixOrder
from rayzero.services.schema.config.data import DataSource
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.training import SupervisedSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.interfaces import LearnerHandle, SftExample
from rayzero.services.schema.messages import Prompt
from rayzero.services.store.json_lines import append_lines, read_lines

Demonstrations = Sequence[tuple[Prompt, str]]


async def supervised_updates(
    learner: LearnerHandle,
    examples: Sequence[Sequence[SftExample]],
    sources: Sequence[DataSource],
    settings: SupervisedSettings,
    seed: int,
    file: Path,
    done: int = 0,
) -> AsyncIterator[dict[str, Any]]:
    """All updates after the first `done`, each as its figures, which are a line of `file` by then.

    Raises:
        RunHalted: a loss or gradient was not finite.
    """
    append_lines(file, [row for row in read_lines(file) if row["update"] <= done], replace=True)
    order = MixOrder([len(part) for part in examples], [source.weight for source in sources], seed)
    for update in range(settings.num_updates):
        drawn = [order.next() for _ in range(settings.demonstrations_per_update)]
        if update < done:
            continue
        figures = await learner.sft_step([examples[source][row] for source, row in drawn], update)
        row = {"update": update + 1, **figures}
        append_lines(file, [row])
        yield row


def encode(
    demonstrations: Sequence[Demonstrations], sources: Sequence[DataSource], recipe: Recipe, model_path: Path
) -> list[list[SftExample]]:
    """Prompt and completion tokens of every source, the prompt rendered just as the engines will render it.

    Raises:
        RecipeError: a demonstration is longer than rollout.max_model_tokens; names its row.
    """
    from transformers import AutoTokenizer

    from rayzero.rollout_workers.templates import render

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    examples: list[list[SftExample]] = []
    for part in demonstrations:
        examples.append([])
        for prompt, completion in part:
            _, prompt_token_ids = render(prompt, recipe.rollout, tokenizer)
            token_ids = [*tokenizer.encode(completion, add_special_tokens=False), tokenizer.eos_token_id]
            examples[-1].append((prompt_token_ids, np.asarray(token_ids, dtype=np.int32)))
    check_demonstrations(examples, sources, recipe.rollout.max_model_tokens)
    return examples


def check_demonstrations(parts: Sequence[Sequence[SftExample]], sources: Sequence[DataSource], limit: int) -> None:
    """A demonstration longer than the model's context would be learned in places it never writes to."""
    for part, source in zip(parts, sources, strict=True):
        for row, (prompt, completion) in enumerate(part, start=1):
            if len(prompt) + len(completion) > limit:
                raise RecipeError(
                    f"row {row} of source {source.name} ({source.kind}) has {len(prompt) + len(completion)} tokens, "
                    f"more than rollout.max_model_tokens = {limit}: raise that, or shorten the row"
                )
