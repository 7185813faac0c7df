"""The supervised start before the loop: demonstrations in shuffled batches, through the learner that GRPO will use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rayzero.services.observe.progress import ProgressView
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.training import SupervisedSettings
from rayzero.services.schema.interfaces import LearnerHandle, SftExample
from rayzero.services.schema.messages import Prompt
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.run_directory import RunDirectory


async def cold_start(
    learner: LearnerHandle,
    demonstrations: Sequence[tuple[Prompt, str]],
    recipe: Recipe,
    model_path: Path,
    directory: RunDirectory,
    progress: ProgressView,
) -> None:
    """Run all supervised updates; their figures go to cold_start.jsonl.

    Raises:
        RunHalted: a loss or gradient was not finite.
    """
    settings = recipe.cold_start
    assert settings is not None
    progress.say(f"cold start: reading {len(demonstrations)} demonstrations")
    examples = await asyncio.to_thread(encode, demonstrations, recipe.rollout.prompt_template, model_path)
    rows: list[dict[str, Any]] = []
    for number, batch in enumerate(batches(examples, settings, recipe.seed), start=1):
        figures = await learner.sft_step(batch, rate_at(number, settings))
        rows.append({"update": number, **figures})
        progress.set_phase(f"cold start: {number} of {settings.num_updates} updates, loss {figures['loss']:.3f}")
    append_lines(directory.file("cold_start.jsonl"), rows, replace=True)
    await learner.end_sft()


def encode(demonstrations: Sequence[tuple[Prompt, str]], template: str, model_path: Path) -> list[SftExample]:
    """Prompt and completion tokens, the prompt rendered just as the engines will render it."""
    from transformers import AutoTokenizer

    from rayzero.rollout_workers.templates import render

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    examples = []
    for prompt, completion in demonstrations:
        _, prompt_token_ids = render(prompt, template, tokenizer)
        token_ids = [*tokenizer.encode(completion, add_special_tokens=False), tokenizer.eos_token_id]
        examples.append((prompt_token_ids, np.asarray(token_ids, dtype=np.int32)))
    return examples


def batches(examples: Sequence[SftExample], settings: SupervisedSettings, seed: int) -> Iterator[list[SftExample]]:
    """`num_updates` batches; every epoch in a new order."""
    random, order = np.random.default_rng(seed), np.zeros(0, dtype=np.int64)
    for _ in range(settings.num_updates):
        while len(order) < settings.demonstrations_per_update:
            order = np.concatenate([order, random.permutation(len(examples))])
        chosen, order = np.split(order, [settings.demonstrations_per_update])
        yield [examples[index] for index in chosen]


def rate_at(number: int, settings: SupervisedSettings) -> float:
    """Learning rate of update `number` (from 1): linear warm-up, then linear decay to a tenth."""
    optimizer = settings.optimizer
    if number <= optimizer.warmup_updates:
        return optimizer.learning_rate * number / optimizer.warmup_updates
    left = (settings.num_updates - number) / max(1, settings.num_updates - optimizer.warmup_updates)
    return optimizer.learning_rate * (0.1 + 0.9 * left)
