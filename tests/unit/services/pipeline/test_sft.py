"""The order of demonstrations: by weight, every row once an epoch, the same for a resumed stage."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rayzero.services.pipeline.context import StageContext
from rayzero.services.pipeline.loading import load_pipeline
from rayzero.services.pipeline.sft import _check_lengths, _updates, draws, latest
from rayzero.services.schema.config.pipeline import SftStage
from rayzero.services.schema.errors import RayzeroError, WorkerError
from rayzero.services.schema.interfaces import SftExample
from rayzero.services.store.json_lines import read_lines
from tests.unit.services.pipeline.kit import write


def test_sources_take_turns_by_weight() -> None:
    drawn = list(islice(draws([100, 100], [3.0, 1.0], seed=0), 40))
    assert [part for part, _ in drawn].count(0) == 30
    for count in range(4, 40):
        assert abs([part for part, _ in drawn[:count]].count(1) - count / 4) < 1


def test_every_row_once_an_epoch_in_another_order_each() -> None:
    rows = [index for _, index in islice(draws([7], [1.0], seed=3), 21)]
    epochs = [rows[0:7], rows[7:14], rows[14:21]]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_follows_from_the_seed() -> None:
    first, again, other = (list(islice(draws([9, 4], [1, 1], seed=seed), 30)) for seed in (1, 1, 2))
    assert first == again != other


class FakeLearner:
    """Remembers its batches; a checkpoint is a directory with their number."""

    def __init__(self, dies_after: int = 10**9) -> None:
        self.batches: list[list[int]] = []
        self.dies_after = dies_after

    async def sft_step(self, examples: Sequence[SftExample], learning_rate: float) -> dict[str, float]:
        if len(self.batches) == self.dies_after:
            raise WorkerError("killed")
        self.batches.append([int(prompt[0]) for prompt, _ in examples])
        return {"loss": 1.0, "grad_norm": 1.0, "tokens": 4.0, "learning_rate": learning_rate}

    async def save_checkpoint(self, directory: str) -> None:
        (Path(directory) / "config.json").write_text(str(len(self.batches)))


def examples() -> list[list[SftExample]]:
    return [[(np.full(3, index, dtype=np.int32), np.ones(2, dtype=np.int32)) for index in range(10)]]


def sft_context(folder: Path) -> StageContext:
    loaded = load_pipeline(write(folder), ["stages.cold.num_updates=9", "stages.cold.checkpoint_every_updates=4"])
    (folder / "work").mkdir(exist_ok=True)
    return StageContext(
        name="cold",
        settings=loaded.pipeline.stages["cold"],
        recipe=loaded.recipes["cold"],
        models={},
        directory=folder,
        work=folder / "work",
        console=Console(quiet=True),
    )


async def train(folder: Path, learner: FakeLearner, done: int = 0) -> None:
    context = sft_context(folder)
    assert isinstance(context.settings, SftStage)
    await _updates(context, context.settings, examples(), learner, done)  # type: ignore[arg-type]


async def test_a_resumed_stage_makes_the_batches_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, first, second = FakeLearner(), FakeLearner(dies_after=6), FakeLearner()
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    await train(tmp_path / "whole", whole)
    with pytest.raises(WorkerError):
        await train(tmp_path / "killed", first)
    found = latest(tmp_path / "killed" / "work")
    assert found is not None and found.name == "update_000004"
    await train(tmp_path / "killed", second, done=4)
    assert first.batches[:4] + second.batches == whole.batches
    rows = read_lines(tmp_path / "killed" / "work" / "metrics.jsonl")
    assert [row["update"] for row in rows] == list(range(1, 10))
    assert [path.name for path in (tmp_path / "killed" / "work").glob("update_*")] == ["update_000009"]


def test_a_demonstration_longer_than_the_context_is_named(tmp_path: Path) -> None:
    source = sft_context(tmp_path).settings.data  # type: ignore[union-attr]
    with pytest.raises(RayzeroError, match=r"row 1 of source default \(function\) has 5 tokens, more than"):
        _check_lengths(examples(), source, limit=4)
