"""Supervised updates: one order and one file of figures, for a cold start as for a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rayzero.services.observe.progress import ProgressView
from rayzero.services.observe.time_left import TimeLeft
from rayzero.services.run.cold_start import cold_start
from rayzero.services.run.supervised import check_demonstrations, supervised_updates
from rayzero.services.schema.config.data import DataSource
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.training import SupervisedSettings
from rayzero.services.schema.errors import RecipeError, RunHalted
from rayzero.services.schema.interfaces import SftExample
from rayzero.services.schema.messages import ChatMessage, Prompt
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import Events, FakeLearner
from tests.models import character_tokenizer

SOURCE = {"kind": "function", "function": "rayzero.services.data.tasks.numbers:addition_demonstrations"}
SETTINGS = SupervisedSettings.model_validate(
    {"num_updates": 5, "demonstrations_per_update": 4, "optimizer": {"learning_rate": 1e-3}}
)


def source(**keys: object) -> DataSource:
    return Recipe.model_validate(recipe(**keys)).data.train[0]


def recipe(**keys: object) -> dict[str, object]:
    return {
        "name": "r",
        "model": {"path": "tiny-addition", "dtype": "float32"},
        "data": {"train": [{**SOURCE, **keys}]},
        "rollout": {"prompt_template": "text", "max_model_tokens": 96, "sampling": {"max_tokens": 48}},
        "reward": {"rubrics": {"default": {"accuracy": {"kind": "math"}}}},
        "training": {"num_updates": 1, "groups_per_update": 1, "group_size": 2},
        "cold_start": {"source": SOURCE, "num_updates": 3, "optimizer": {}, "demonstrations_per_update": 2},
    }


def part(first: int, count: int) -> list[SftExample]:
    """Examples that are known by their first prompt token."""
    return [(np.full(3, first + row, dtype=np.int32), np.ones(2, dtype=np.int32)) for row in range(count)]


class Recorder(FakeLearner):
    """Remembers which examples it was given."""

    def __init__(self, halts_at: int | None = None) -> None:
        super().__init__(Events())
        self.batches: list[list[int]] = []
        self.updates: list[int] = []
        self.halts_at = halts_at

    async def sft_step(self, examples: Sequence[SftExample], update: int) -> Mapping[str, float]:
        if update == self.halts_at:
            raise RunHalted("loss=nan")
        self.batches.append([int(prompt[0]) for prompt, _ in examples])
        self.updates.append(update)
        return {"loss": float(update)}


async def run(learner: Recorder, file: Path, done: int = 0) -> list[int]:
    parts, sources = [part(0, 6), part(100, 3)], [source(weight=3.0), source()]
    return [row["update"] async for row in supervised_updates(learner, parts, sources, SETTINGS, 7, file, done)]


async def test_batches_follow_the_weights_and_the_seed_also_when_resumed(tmp_path: Path) -> None:
    whole, rest = Recorder(), Recorder()
    assert await run(whole, tmp_path / "whole.jsonl") == [1, 2, 3, 4, 5]
    assert whole.updates == [0, 1, 2, 3, 4]
    assert all(sum(row >= 100 for row in batch) == 1 for batch in whole.batches)
    assert await run(rest, tmp_path / "rest.jsonl", done=3) == [4, 5]
    assert (rest.updates, rest.batches) == ([3, 4], whole.batches[3:])


async def test_figures_are_on_disk_update_by_update_and_later_ones_go_when_it_is_resumed(tmp_path: Path) -> None:
    file = tmp_path / "figures.jsonl"
    with pytest.raises(RunHalted):
        await run(Recorder(halts_at=4), file)
    assert [row["update"] for row in read_lines(file)] == [1, 2, 3, 4]
    await run(Recorder(), file, done=2)
    assert read_lines(file) == [{"update": number, "loss": number - 1.0} for number in range(1, 6)]


def test_a_demonstration_longer_than_the_context_is_named() -> None:
    with pytest.raises(RecipeError, match=r"row 1 of source default \(function\) has 5 tokens, more than"):
        check_demonstrations([part(0, 2)], [source()], limit=4)


async def test_a_cold_start_ends_its_optimizer_and_refuses_what_is_too_long(tmp_path: Path) -> None:
    shown = [
        (Prompt(prompt_id=str(n), messages=(ChatMessage(role="user", content="1+1="),), answer=""), "2")
        for n in range(5)
    ]
    character_tokenizer().save_pretrained(tmp_path)
    learner, directory = Recorder(), RunDirectory(tmp_path)
    settings = Recipe.model_validate(recipe())
    with ProgressView(Console(quiet=True), TimeLeft(1)) as progress:
        await cold_start(learner, shown, settings, tmp_path, directory, progress)
        assert learner.updates == [0, 1, 2] and learner.events[-1] == "learner.end_sft"
        assert [row["loss"] for row in read_lines(directory.file("cold_start.jsonl"))] == [0.0, 1.0, 2.0]
        shown[3] = (shown[3][0], "1" * 96)
        with pytest.raises(RecipeError, match=r"row 4 of source default .* more than rollout\.max_model_tokens = 96"):
            await cold_start(learner, shown, settings, tmp_path, directory, progress)
