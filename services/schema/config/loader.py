"""YAML -> Recipe: overrides, and errors that name the key, the file, the line and the fix."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rayzero.services.schema.config.environment_variables import with_variables
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.section_classes import KeyPath, classes_at, hint, is_field, tags_at
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.import_root import IMPORT_ROOT
from rayzero.services.schema.printable import encodable

M = TypeVar("M", bound=BaseModel)
MAX_DEPTH, MAX_KEYS = 50, 100_000
"""Of a document: no recipe comes near either."""
_INDEX = re.compile(r"[0-9]{1,9}")
_EXPERTS_DEALT_OUT = (
    "there is no expert parallelism: experts are dealt out like all other weights, by cluster.learner_gpus and "
    "rollout.tensor_parallel_size"
)
_ABSENT: Mapping[str, str] = {
    "expert_parallel_size": _EXPERTS_DEALT_OUT,
    "enable_expert_parallel": _EXPERTS_DEALT_OUT,
    "expert_model_parallel_size": _EXPERTS_DEALT_OUT,
    "router_aux_loss_coef": "there is no load-balancing loss: it would move the routers where no reward asks for it",
}
"""Keys that others have, and why this recipe has none."""
_SIGNS = frozenset("*&!%@`")
"""What a text may begin with on a command line, and no YAML value as it stands."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and validate a recipe.

    Overrides are `dotted.key=value`, the value parsed as YAML: `training.num_updates=20`, `rollout.num_workers=2`.

    Raises:
        RecipeError: every problem at once, each with its key, its file and line (or override) and a fix.
    """
    content, origins = read_document(path, overrides)
    if "stages" in content:
        raise RecipeError(f"{path} is a pipeline: rayzero pipeline run {path}")
    return validate_recipe(content, origins, default_origin=str(path))


def read_document(path: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """A YAML file with overrides applied, as plain data, and where each key was written.

    Raises:
        RecipeError: it cannot be read, is not YAML, or an override does not fit.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror}{_similar_files(path)}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    origins: dict[KeyPath, str] = {}
    content = _parse(text, path, origins)
    for override in overrides:
        _apply(content, override, origins)
    return with_variables(content, os.environ, origins, str(path)), origins


def validate_recipe(content: Mapping[str, Any], origins: Mapping[KeyPath, str], default_origin: str) -> Recipe:
    """Build a Recipe from plain data; `origins` says where each key was written, for the error."""
    return validate_document(Recipe, content, origins, default_origin)


def validate_document(
    root: type[M], content: Mapping[str, Any], origins: Mapping[KeyPath, str], default_origin: str
) -> M:
    """Build a document of the kind `root` from plain data.

    Raises:
        RecipeError: every problem at once.
    """
    for location, text in _texts(content, ()):
        if encodable(text) != text:
            origin, key = origins.get(location, default_origin), _dotted(location)
            raise RecipeError(f"{origin}: {key}: holds half a character (an unpaired surrogate): write it whole")
    try:
        return root.model_validate(content)
    except ValidationError as error:
        problems = [dict(problem) for problem in error.errors()]
        lines = [_explain(each, origins, default_origin, root) for each in problems if not _follows(each, problems)]
        raise RecipeError("\n".join(dict.fromkeys(lines))) from None


def _parse(text: str, path: Path, origins: dict[KeyPath, str]) -> dict[str, Any]:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise RecipeError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, OverflowError, RecursionError) as error:  # a date like 2026-13-45; brackets without end
        raise RecipeError(f"{path}: not a value that YAML can hold: {_first_words(error)}; quote it") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of sections (name, model, data, …), not {_kind(content)}")
    if (endless := _has_no_end(node)) is not None:
        where = f"{path}:{endless.start_mark.line + 1}"
        raise RecipeError(f"{where}: nested without end (an alias within its own anchor?): write it out")
    for key_path, key_node in _walk(node, ()):
        if key_path in origins:
            raise RecipeError(f"{path}:{key_node.start_mark.line + 1}: {_dotted(key_path)} is given twice: remove one")
        origins[key_path] = f"{path}:{key_node.start_mark.line + 1}"
    return content


def _has_no_end(root: yaml.Node | None) -> yaml.Node | None:
    """The node that is too deep or one too many, if any: an anchor that holds its own alias has no end."""
    for number, (key_path, node) in enumerate(_walk(root, ())):
        if len(key_path) > MAX_DEPTH or number > MAX_KEYS:
            return node
    return None


def _walk(node: yaml.Node | None, prefix: KeyPath) -> Iterator[tuple[KeyPath, yaml.Node]]:
    """Every key of a composed document with the node that holds its line."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*prefix, str(key.value)), key
            yield from _walk(value, (*prefix, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*prefix, index), value
            yield from _walk(value, (*prefix, index))


def _apply(content: dict[str, Any], override: str, origins: dict[KeyPath, str]) -> None:
    key, separator, raw = override.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"override {override!r}: write it as dotted.key=value, e.g. training.num_updates=20")
    try:
        value = yaml.safe_load(raw)
        if _has_no_end(yaml.compose(raw, Loader=yaml.SafeLoader)) is not None:
            raise RecipeError(
                f"override {override!r}: nested without end (an alias within its own anchor?): write it out"
            )
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        if not isinstance(error, yaml.MarkedYAMLError) or raw[:1] not in _SIGNS:
            raise RecipeError(f"override {override!r}: {raw!r} is not a YAML value; quote it") from None
        value = raw  # `*.jsonl` is a pattern, not an alias of nothing
    parts: list[str | int] = [int(part) if _INDEX.fullmatch(part) else part for part in key.strip().split(".")]
    target: Any = content
    for index, part in enumerate(parts[:-1]):
        if isinstance(target, list):
            if not isinstance(part, int) or part >= len(target):
                raise RecipeError(
                    f"override {override!r}: {_dotted(tuple(parts[: index + 1]))} is not an item of the list"
                )
            target = target[part]
        else:
            if str(part) not in target:
                origins[tuple(parts[: index + 1])] = f"override {override!r}"
            target = target.setdefault(str(part), {})
        if not isinstance(target, dict | list):
            raise RecipeError(f"override {override!r}: {_dotted(tuple(parts[: index + 1]))} is a value, not a section")
    last = parts[-1]
    try:
        target[last if isinstance(target, list) else str(last)] = value
    except (IndexError, TypeError):
        raise RecipeError(f"override {override!r}: no such item in the list") from None
    origins[tuple(parts)] = f"override {override!r}"


def _texts(value: Any, location: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every text of plain data, and its key."""
    if isinstance(value, str):
        yield location, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(str(name), (*location, str(name)))
            yield from _texts(item, (*location, str(name)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts(item, (*location, index))


def _follows(problem: Mapping[str, Any], all_of_them: Sequence[Mapping[str, Any]]) -> bool:
    """A list is too short where its items are refused, and each of those has a line."""
    place = tuple(problem["loc"])
    within = (tuple(each["loc"]) for each in all_of_them)
    return problem["type"] == "too_short" and any(
        len(loc) > len(place) and loc[: len(place)] == place for loc in within
    )


def _explain(
    problem: dict[str, Any], origins: Mapping[KeyPath, str], default_origin: str, root: type[BaseModel]
) -> str:
    location = tuple(problem["loc"])
    origin = _origin(location, origins, root) or default_origin
    key = _dotted(_without_tags(location, origins, root)) or "recipe"
    if problem["type"] == "extra_forbidden":
        if (absent := _ABSENT.get(str(location[-1]))) is not None:
            return f"{origin}: {key}: {absent}"
        return f"{origin}: {key}: unknown key; {hint(location, root)}"
    if problem["type"] == "missing":
        return f"{origin}: {key}: missing; add it{_doc(location, root)}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = problem.get("input")
    if problem["type"] in ("tuple_type", "list_type"):
        message = "must be a list, such as [a, b]"
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _explain_variant(problem, location, origins, default_origin, root)
    if problem["type"] == "int_parsing" and (number := _whole(given)) is not None:
        return f"{origin}: {key}: {given} is text in YAML: write {number}"
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool) or given is None else ""
    return f"{origin}: {key}: {message[:1].lower()}{message[1:]}{shown}"


def _explain_variant(
    problem: Mapping[str, Any],
    location: KeyPath,
    origins: Mapping[KeyPath, str],
    default_origin: str,
    root: type[BaseModel],
) -> str:
    """A section whose `kind` (or `name`) is unknown or not there."""
    tag_key = str(problem["ctx"]["discriminator"]).strip("'")
    origin = _origin((*location, tag_key), origins, root) or default_origin
    where = f"{origin}: {_dotted((*_without_tags(location, origins, root), tag_key))}"
    known = tags_at(location, root)
    choose = f"choose of {', '.join(known)}"
    if problem["type"] == "union_tag_not_found":
        return f"{where}: missing; add it, {choose}"
    given = str(problem["ctx"]["tag"])
    close = difflib.get_close_matches(given, known, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"{where}: unknown {given!r}; {meant}{choose}"


def _whole(given: Any) -> int | None:
    """The number that a text like `5e2` means."""
    with contextlib.suppress(ValueError, OverflowError):
        number = float(str(given))
        return int(number) if number.is_integer() and abs(number) < 1e15 else None
    return None


def _origin(location: KeyPath, origins: Mapping[KeyPath, str], root: type[BaseModel]) -> str | None:
    known = _without_tags(location, origins, root)
    while known:
        if known in origins:
            return origins[known]
        known = known[:-1]
    return None


def _without_tags(location: KeyPath, origins: Mapping[KeyPath, str], root: type[BaseModel]) -> KeyPath:
    """Drop the union tags that pydantic puts into a location (`data.train.jsonl.path`): no user wrote them."""
    kept: list[str | int] = []
    for index, part in enumerate(location):
        inside = index < len(location) - 1 and tuple(kept) in origins and (*kept, part) not in origins
        if not (inside and isinstance(part, str) and not is_field(tuple(kept), part, root)):
            kept.append(part)
    return tuple(kept)


def _doc(location: KeyPath, root: type[BaseModel]) -> str:
    for model in classes_at(location[:-1], root):
        field = model.model_fields.get(str(location[-1]))
        if field is not None and field.description:
            return f" ({field.description.splitlines()[0].rstrip('.')})"
    return ""


def _dotted(location: KeyPath) -> str:
    return ".".join(str(part) for part in location)


def _first_words(error: Exception) -> str:
    return "too deep" if isinstance(error, RecursionError) else str(error)[:200]


def _kind(content: Any) -> str:
    return "an empty file" if content is None else f"a {type(content).__name__}"


def _similar_files(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else IMPORT_ROOT / "rayzero/recipes"
    names = [entry.name for entry in sorted(folder.glob("*.yaml"))] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    if close:
        return f"; did you mean {folder / close[0]}?"
    return f"; recipes here: {', '.join(names)}" if names else ""
