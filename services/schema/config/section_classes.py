"""Which section classes a key of a recipe can mean, and the names that they have: for errors that name the nearest."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

KeyPath = tuple[str | int, ...]
_TAG_KEYS = ("kind", "name")
"""What tells the variants of a union apart."""


def classes_at(location: Iterable[str | int], root: type[BaseModel]) -> list[type[BaseModel]]:
    """Several where a key holds a union of variants, and the location does not say which; pydantic's does, by tag."""
    found: list[Any] = [root]
    for part in location:
        found = _inside(found, part) or found
    return [model for annotation in found for model in models_in(annotation)]


def is_field(prefix: KeyPath, name: str, root: type[BaseModel]) -> bool:
    """Whether a section there has such a key."""
    return any(name in model.model_fields for model in classes_at(prefix, root))


def tags_at(location: Iterable[str | int], root: type[BaseModel]) -> list[str]:
    """What the `kind` (or `name`) of the section there may be, in the order of its union."""
    return list(dict.fromkeys(str(tag) for model in classes_at(location, root) for tag in _tags(model)))


def hint(location: KeyPath, root: type[BaseModel]) -> str:
    """For an unknown key: the nearest that there is, here or one section further down; of a variant all that it has."""
    models = classes_at(location[:-1], root)
    names = sorted({name for model in models for name in model.model_fields})
    given = str(location[-1])
    below = {
        inner: f"{name}.{inner}"
        for model in models
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for inner in field.annotation.model_fields
    }
    close = difflib.get_close_matches(given, names, n=1)
    close = close or [below[name] for name in difflib.get_close_matches(given, below, n=1, cutoff=0.8)]
    tag = location[-2] if len(location) > 1 and len(models) == 1 and location[-2] in _tags(models[0]) else None
    of = "known keys here" if tag is None else f"keys of {tag}"
    listed = f"{of}: {', '.join(names)}"
    if not close:
        return listed
    return f"did you mean {close[0]!r}?" + ("" if tag is None else f" {listed}")


def _inside(annotations: Sequence[Any], part: str | int) -> list[Any]:
    models = [each for each in annotations if _is_model(each)]
    if len(models) > 1 and (tagged := [model for model in models if part in _tags(model)]):
        return tagged
    fields = [field for model in models if (field := model.model_fields.get(str(part))) is not None]
    if fields:
        return [each for field in fields for each in _alternatives(field.annotation)]
    containers = [(get_origin(each), get_args(each)) for each in annotations if not _is_model(each)]
    return [
        inner
        for origin, arguments in containers
        if arguments and origin is not Literal
        for inner in _alternatives(arguments[-1] if origin in (dict, Mapping) else arguments[0])
    ]


def _alternatives(annotation: Any) -> list[Any]:
    """What a value of that type can be: unions and aliases taken apart, containers left whole."""
    annotation = getattr(annotation, "__value__", annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _alternatives(arguments[0])
    if origin in (Union, types.UnionType):
        return [each for argument in arguments for each in _alternatives(argument)]
    return [] if annotation is type(None) else [annotation]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a value of that type can be or hold."""
    if _is_model(annotation):
        return [annotation]
    value = getattr(annotation, "__value__", annotation)
    return [model for argument in getattr(value, "__args__", ()) for model in models_in(argument)]


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    fields = (model.model_fields.get(key) for key in _TAG_KEYS)
    return tuple(
        tag
        for field in fields
        if field is not None and get_origin(field.annotation) is Literal
        for tag in get_args(field.annotation)
    )


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
