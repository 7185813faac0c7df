"""A supervised stage that is killed: the same batches, the same figures, one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rayzero.services.pipeline.context import StageContext
from rayzero.services.pipeline.loading import load_pipeline
from rayzero.services.pipeline.sft import _updates, latest
from rayzero.services.schema.config.pipeline import SftStage
from rayzero.services.schema.errors import WorkerError
from rayzero.services.schema.interfaces import SftExample
from rayzero.services.store.json_lines import read_lines
from tests.unit.services.pipeline.kit import write


class FakeLearner:
    """Remembers its batches; a checkpoint is a directory with their number."""

    def __init__(self, dies_after: int = 10**9) -> None:
        self.batches: list[list[int]] = []
        self.dies_after = dies_after

    async def sft_step(self, examples: Sequence[SftExample], update: int) -> dict[str, float]:
        if len(self.batches) == self.dies_after:
            raise WorkerError("killed")
        self.batches.append([int(prompt[0]) for prompt, _ in examples])
        return {"loss": 1.0, "grad_norm": 1.0, "tokens": 4.0, "learning_rate": 0.0}

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
