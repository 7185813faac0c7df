"""A pipeline of fake stages: each writes what it read, so that a test sees what ran, in what order, on what."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from rayzero.services.pipeline.context import StageContext, StageOutcome
from rayzero.services.pipeline.job import attempt_at
from rayzero.services.pipeline.loading import load_pipeline
from rayzero.services.pipeline.pipeline_run import PipelineRun
from rayzero.services.schema.config.pipeline import WRITES
from rayzero.services.schema.errors import RayzeroError, RecipeError

PIPELINE = """\
name: r1
models: {base: BASE}
dtype: float32
recipe:
  data: {train: [{kind: function, function: "rayzero.services.data.tasks.numbers:addition"}]}
  rollout: {prompt_template: text, max_model_tokens: 96, sampling: {max_tokens: 48}}
  reward: {rubrics: {default: {accuracy: {kind: math}}}}
stages:
  cold:
    kind: sft
    data: [{kind: function, function: "rayzero.services.data.tasks.numbers:addition_demonstrations"}]
    num_updates: 4
    optimizer: {learning_rate: 1.0e-3}
  reasoning:
    kind: grpo
    model: cold
    recipe: {training: {num_updates: 3, groups_per_update: 2, group_size: 2}}
  sampled:
    kind: rejection_sample
    model: reasoning
    num_prompts: 4
  final:
    kind: sft
    data: [{kind: jsonl, path: "stage:sampled"}]
    num_updates: 4
    optimizer: {learning_rate: 1.0e-3}
  measured:
    kind: eval
    models: [base, cold, final]
"""


def refusal(folder: Path, text: str, *overrides: str) -> str:
    """What is said of a pipeline that is refused."""
    with pytest.raises(RecipeError) as caught:
        load_pipeline(write(folder, text), overrides)
    return str(caught.value)


class FakeKinds:
    """Runs every kind of stage in no time. `fails` holds names of stages that raise, `killed` of those that die."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.fails: set[str] = set()
        self.contexts: dict[str, StageContext] = {}

    def __call__(self, context: StageContext) -> StageOutcome:
        self.ran.append(context.name)
        self.contexts[context.name] = context
        if context.name in self.fails:
            raise RayzeroError("out of luck")
        artefact = context.directory / "artefact"
        if WRITES[context.settings.kind] in ("model", "reward model"):
            artefact.mkdir(exist_ok=True)
            (artefact / "weights").write_text(context.name)
        else:
            artefact.write_text(context.name)
        return StageOutcome(artefact=artefact, figures={"size": 1.0})


def write(folder: Path, text: str = PIPELINE) -> Path:
    """The pipeline as a file, its base model a directory of one file."""
    base = folder / "base"
    base.mkdir(exist_ok=True)
    (base / "config.json").write_text("{}")
    path = folder / "pipeline.yaml"
    path.write_text(text.replace("BASE", str(base)))
    return path


def attempt(folder: Path, kinds: FakeKinds, *overrides: str, text: str = PIPELINE) -> PipelineRun:
    """The pipeline, ready to run in `folder`/run."""
    made = attempt_at(
        load_pipeline(write(folder, text), overrides),
        folder / "run",
        Console(quiet=True),
        dict.fromkeys(WRITES, kinds),
    )
    made.find_model = lambda path: Path(path)
    return made
