"""A pipeline's YAML -> stages, graph and recipes, all of it checked before anything starts."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rayzero.services.pipeline.fingerprints import digest
from rayzero.services.pipeline.graph import Graph, build_graph
from rayzero.services.pipeline.recipes import stage_recipe
from rayzero.services.planning.models import resolve_model
from rayzero.services.schema.config.loader import read_document, validate_document
from rayzero.services.schema.config.pipeline import OnPolicyDistillStage, Pipeline
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.reward_components import JudgeComponent, RemoteComponent
from rayzero.services.schema.config.section_classes import KeyPath
from rayzero.services.schema.errors import RecipeError

CONNECT_S = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPipeline:
    """A pipeline that stands on paper."""

    content: Mapping[str, Any]
    """The document with its overrides, as plain data: what is kept in the run directory."""
    origins: Mapping[KeyPath, str]
    graph: Graph
    recipes: Mapping[str, Recipe]

    @property
    def pipeline(self) -> Pipeline:
        """Its settings."""
        return self.graph.pipeline


def load_pipeline(path: Path, overrides: Sequence[str] = ()) -> LoadedPipeline:
    """Read, override and validate a pipeline and the recipe of every stage.

    Raises:
        RecipeError: every problem with its stage, key, file, line and fix.
    """
    content, origins = read_document(path, overrides)
    pipeline = validate_document(Pipeline, content, origins, str(path))
    graph = build_graph(pipeline, origins)
    problems: list[str] = []
    recipes: dict[str, Recipe] = {}
    for name in graph.order:
        try:
            recipes[name] = stage_recipe(pipeline, name, origins, str(path))
        except RecipeError as error:
            problems.append(str(error))
    if problems:
        raise RecipeError("\n".join(problems))
    return LoadedPipeline(content=content, origins=origins, graph=graph, recipes=recipes)


def is_pipeline(path: Path) -> bool:
    """Whether a YAML file is a pipeline rather than the recipe of one run."""
    return "stages" in read_document(path)[0]


def check_tokenizers(loaded: LoadedPipeline, find_model: Callable[[str], Path] = resolve_model) -> None:
    """On-policy distillation compares log-probabilities token by token: both must have one tokenizer.

    Raises:
        RecipeError: they have not; names the stage and the line.
    """
    for name, stage in loaded.pipeline.stages.items():
        if not isinstance(stage, OnPolicyDistillStage):
            continue
        roots = [loaded.graph.root_model(each) for each in (stage.model, stage.teacher)]
        student, teacher = (find_model(loaded.pipeline.models[root]) / "tokenizer.json" for root in roots)
        if student.is_file() and teacher.is_file() and digest(student) != digest(teacher):
            where = loaded.origins.get(("stages", name, "teacher"), name)
            raise RecipeError(
                f"{where}: stages.{name}.teacher: {stage.teacher} has the tokenizer of models.{roots[1]}, the student "
                f"{stage.model} that of models.{roots[0]}, and they differ: reverse KL needs one tokenizer; distil by "
                "kind: distill, which works on text"
            )


def check_servers(loaded: LoadedPipeline, stages: Sequence[str]) -> None:
    """Judges and reward servers that stages about to run will ask.

    Raises:
        RecipeError: one cannot be connected to; names the stage, the component and the fix.
    """
    for name in stages:
        for source, rubric in loaded.recipes[name].reward.rubrics.items():
            for key, component in rubric.items():
                if not isinstance(component, JudgeComponent | RemoteComponent):
                    continue
                url = component.base_url if isinstance(component, JudgeComponent) else component.url
                if fault := _unreachable(url):
                    raise RecipeError(
                        f"stage {name}: reward.rubrics.{source}.{key}: nothing answers at {url} ({fault}): start the "
                        "server, or correct the address; stages that are done are kept"
                    )


def _unreachable(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=CONNECT_S):
            return ""
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
