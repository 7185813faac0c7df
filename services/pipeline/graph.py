"""Which stage needs which, in what order they run, and what is refused: misspelt names, wrong kinds, cycles."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayzero.services.pipeline.recipes import recipe_content
from rayzero.services.schema.config.pipeline import (
    DATASET,
    MODEL,
    REFERENCE,
    REWARD_MODEL,
    WRITES,
    EvalStage,
    OnPolicyDistillStage,
    Pipeline,
    Stage,
)
from rayzero.services.schema.config.section_classes import KeyPath
from rayzero.services.schema.errors import RecipeError

ARTICLES = {MODEL: "a model", DATASET: "a dataset", REWARD_MODEL: "a reward model"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """The stages of a pipeline and what each needs."""

    pipeline: Pipeline
    inputs: Mapping[str, tuple[str, ...]]
    """By stage: the stages and the names of `models` that it reads, in the order in which they are named."""
    order: tuple[str, ...]
    """All stages, each after everything that it reads, else as in the recipe."""

    def root_model(self, name: str) -> str:
        """The name of `models` that a model comes from: its tokenizer is that one's."""
        while name not in self.pipeline.models:
            stage = self.pipeline.stages[name]
            assert not isinstance(stage, EvalStage)
            name = stage.model
        return name

    def needed_for(self, name: str) -> set[str]:
        """The stages that must be done before `name` is, itself included."""
        found = {name}
        for stage in reversed(self.order):
            if stage in found:
                found.update(each for each in self.inputs[stage] if each in self.pipeline.stages)
        return found


def build_graph(pipeline: Pipeline, origins: Mapping[KeyPath, str]) -> Graph:
    """The graph of a pipeline; `origins` says where each key was written.

    Raises:
        RecipeError: every name that does not fit, or a cycle; with the file, the line and the fix.
    """
    problems = [
        f"{_where(origins, 'models', name)}: models.{name}: there is a stage of this name too: rename one"
        for name in pipeline.models
        if name in pipeline.stages
    ]
    inputs: dict[str, tuple[str, ...]] = {}
    for name, stage in pipeline.stages.items():
        found: dict[tuple[str, str], None] = {}
        for key, wanted, what in _uses(pipeline, name, stage):
            if (wanted, what) not in found and (problem := _problem(pipeline, wanted, what)):
                problems.append(f"{_where(origins, 'stages', name, *key)}: stages.{name}.{_dotted(key)}: {problem}")
            found[wanted, what] = None
        inputs[name] = tuple(dict.fromkeys(wanted for wanted, _ in found))
    if problems:
        raise RecipeError("\n".join(dict.fromkeys(problems)))
    return Graph(pipeline=pipeline, inputs=inputs, order=_order(pipeline, inputs, origins))


def model_uses(stage: Stage) -> list[tuple[KeyPath, str, str]]:
    """The models that a stage names: (key, name, `model`)."""
    if isinstance(stage, EvalStage):
        return [(("models", index), name, MODEL) for index, name in enumerate(stage.models)]
    uses: list[tuple[KeyPath, str, str]] = [(("model",), stage.model, MODEL)]
    return [*uses, (("teacher",), stage.teacher, MODEL)] if isinstance(stage, OnPolicyDistillStage) else uses


def references(value: Any, key: KeyPath = ()) -> Iterator[tuple[KeyPath, str, str]]:
    """Every `stage:NAME` in plain data: (key, name, what is expected there)."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, str) and inner.startswith(REFERENCE):
                what = REWARD_MODEL if value.get("kind") == "reward_model" else DATASET
                yield (*key, str(name)), inner.removeprefix(REFERENCE), what
            else:
                yield from references(inner, (*key, str(name)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from references(inner, (*key, index))


def _uses(pipeline: Pipeline, name: str, stage: Stage) -> Iterator[tuple[KeyPath, str, str]]:
    """All that a stage reads, by its own keys and by those of its recipe."""
    yield from model_uses(stage)
    yield from references(stage.model_dump(mode="json", exclude={"recipe"}))
    yield from references(recipe_content(pipeline, name), ("recipe",))


def _problem(pipeline: Pipeline, wanted: str, what: str) -> str:
    """Why a stage cannot read `wanted`; empty when it can."""
    if what == MODEL and wanted in pipeline.models:
        return ""
    stage = pipeline.stages.get(wanted)
    if stage is not None and WRITES[stage.kind] == what:
        return ""
    fitting = [name for name, other in pipeline.stages.items() if WRITES[other.kind] == what]
    known = [*(pipeline.models if what == MODEL else ()), *fitting]
    if stage is not None:
        return f"stage {wanted!r} writes {WRITES[stage.kind]}, not {ARTICLES[what]}; name one of: {_list(known)}"
    close = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"name one of: {_list(known)}"
    return f"there is no {wanted!r} that is {ARTICLES[what]}; {hint}"


def _order(pipeline: Pipeline, inputs: Mapping[str, Sequence[str]], origins: Mapping[KeyPath, str]) -> tuple[str, ...]:
    """The first in the recipe whose inputs are done, again and again."""
    done: list[str] = []
    while len(done) < len(pipeline.stages):
        left = [name for name in pipeline.stages if name not in done]
        ready = [name for name in left if not set(inputs[name]).intersection(left)]
        if not ready:
            circle = _circle(left[0], inputs, left)
            raise RecipeError(
                f"{_where(origins, 'stages', circle[0])}: stages wait for one another: {' → '.join(circle)}: let one "
                "of them start from something that is there before it"
            )
        done.append(ready[0])
    return tuple(done)


def _circle(start: str, inputs: Mapping[str, Sequence[str]], left: Sequence[str]) -> list[str]:
    path = [start]
    while True:
        following = next(name for name in inputs[path[-1]] if name in left)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


def _where(origins: Mapping[KeyPath, str], *key: str | int) -> str:
    for length in range(len(key), 0, -1):
        if key[:length] in origins:
            return origins[key[:length]]
    return "pipeline"


def _dotted(key: KeyPath) -> str:
    return ".".join(str(part) for part in key)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
