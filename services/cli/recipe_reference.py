"""The recipe reference, written from the settings' own documentation: `rayzero recipe`, deploy/recipes/README.md."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rayzero.services.schema.config.pipeline import Pipeline
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import UsageError

INTRODUCTION = """\
# Recipes

One YAML a run. Unknown keys are refused; `rayzero check RECIPE` validates a recipe and prints what it will do. Any key
can be changed on the command line: `rayzero train deploy/recipes/demo.yaml training.num_updates=20 seed=1`.

Written from the settings in services/schema/config by `rayzero recipe`; a test keeps it up to date.
"""


PIPELINES = """
# Pipelines

Several runs as one job: `rayzero pipeline run PIPELINE`. A stage's `recipe` takes the keys above, `name`, `seed`,
`description`, `model` and `cold_start` aside.
"""


def markdown() -> str:
    """The whole reference; a section that stands in several places is described at the first."""
    recipes = _places(Recipe)
    pipelines = {model: paths for model, paths in _places(Pipeline).items() if model not in recipes}
    return INTRODUCTION + _described(recipes) + PIPELINES + _described(pipelines)


def section(path: str) -> str:
    """What of the reference is about one section, such as `learner.watch`: all of its variants, and what is below it.

    Raises:
        UsageError: there is none; names those that there are.
    """
    places = [(place, model) for root in (Recipe, Pipeline) for place, model in _sections("", root) if place]
    found = dict.fromkeys(model for place, model in places if place == path)
    paths = list(dict.fromkeys(place for place, _ in places))
    if not found:
        top = path.partition(".")[0]
        known = [each for each in paths if each.partition(".")[0] == top] or [each for each in paths if "." not in each]
        close = difflib.get_close_matches(path, paths, n=1)
        nearest = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"no section of a recipe is called {path}; {nearest}there are: {', '.join(known)}")
    below = [each for each in paths if each.rpartition(".")[0] == path]
    text = "".join(_section(model, [path]) for model in found).lstrip("\n")
    return text + (f"\nSections in it: {', '.join(below)}\n" if below else "")


def _places(root: type[BaseModel]) -> dict[type[BaseModel], list[str]]:
    places: dict[type[BaseModel], list[str]] = {}
    for path, model in _sections("", root):
        places.setdefault(model, []).append(path)
    return places


def _described(places: dict[type[BaseModel], list[str]]) -> str:
    return "".join(_section(model, paths) for model, paths in places.items())


def _sections(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section with its dotted path, in the order in which a recipe is written."""
    yield path, model
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            yield from _sections(f"{path}.{name}".lstrip("."), inner)


def _section(model: type[BaseModel], paths: list[str]) -> str:
    variant = _variant(model)
    title = (paths[0] or "top level") + (f" ({variant})" if variant else "")
    others = list(dict.fromkeys(path for path in paths[1:] if path != paths[0]))
    summary = " ".join((model.__doc__ or "").split())
    if others:
        summary += f" Also under {', '.join(others[:3])}{' and more' if len(others) > 3 else ''}."
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    head = ["| key | type | default | what it is |", "|---|---|---|---|"]
    return "\n".join(["", f"## {title}", "", summary, "", *head, *rows, ""])


def _row(name: str, field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{name}` | {_type(field.annotation)}{_bounds(field)} | {_default(field)} | {text} |"


def _type(annotation: Any) -> str:
    """What a person would write there."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " / ".join(f"`{value}`" for value in arguments)
    if _models(annotation):
        return "list of sections" if origin in (tuple, list) else "sections by name" if origin is dict else "section"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("empty" if part is type(None) else _type(part) for part in arguments)
    if origin in (tuple, list):
        return "list"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true / false", "dict": "mapping"}.get(
        getattr(origin or annotation, "__name__", str(annotation)), "value"
    )


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(item, key):g}" for item in field.metadata for key, sign in signs.items() if hasattr(item, key)
    ]
    return f" {', '.join(bounds)}" if bounds else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return _variant(type(value)) or "below"
    if value is None or value in ("", (), {}):
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return f"`{list(value)}`" if isinstance(value, tuple) else f"{value}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field can hold: several where it is a choice of variants."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models(argument)]


def _variant(model: type[BaseModel]) -> str:
    """`kind: jsonl` of a variant, from its discriminating literal; empty for a plain section."""
    for key in ("kind", "name"):
        field = model.model_fields.get(key)
        if field is not None and typing.get_origin(field.annotation) is Literal:
            return re.sub(r"\s+", " ", f"{key}: {field.default}")
    return ""
