"""Structured output: the answer is JSON that the prompt's schema accepts (JSON Schema; by default draft 2020-12).

Strict JSON: no NaN, no key twice. A schema may hold a pattern that never ends: validation runs in killable children.
References to other documents are refused, so that no row makes a worker open a connection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from rayzero.rewards.answer_part import answer_part
from rayzero.rewards.base import Case
from rayzero.rewards.children.pool import ChildPool
from rayzero.rewards.kinds.pooled import BadPromptError, NoAnswerError, PooledReward
from rayzero.services.schema.config.reward_components import JsonSchemaComponent

_FENCE = re.compile(r"^```(?:json|JSON)?[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_ONLY_FENCE = re.compile(r"\A```(?:json|JSON)?[ \t]*\n(.*?)^```[ \t]*\Z", re.DOTALL | re.MULTILINE)


class JsonSchemaReward(PooledReward):
    """1 where the answer is JSON of the prompt's schema, else 0."""

    def __init__(self, settings: JsonSchemaComponent, pool: ChildPool) -> None:
        super().__init__(pool)
        self.settings = settings

    def item(self, case: Case) -> list[Any]:
        """Schema and JSON text."""
        column = self.settings.schema_column
        schema = case.prompt.columns.get(column) if column else case.prompt.answer
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except (ValueError, RecursionError) as error:
                raise BadPromptError(f"the schema is no JSON: {error}") from None
        if not isinstance(schema, dict | bool):
            raise BadPromptError("the schema must be an object, or JSON text of one")
        part = answer_part(case.text, prefilled=case.prefilled)
        if part is None:
            raise NoAnswerError("the thought never ends: no </think>")
        text = json_text(part, allow_prose=self.settings.allow_prose)
        if text is None:
            raise NoAnswerError("no JSON in the answer part")
        return [schema, text]


def json_text(part: str, *, allow_prose: bool = False) -> str | None:
    """The JSON of an answer: all of it, or one fenced block; with `allow_prose` the last block wherever it stands."""
    part = part.strip()
    only = _ONLY_FENCE.match(part)
    if only is not None and "```" not in only[1]:
        return only[1].strip() or None
    blocks = _FENCE.findall(part) if allow_prose else []
    return (blocks[-1].strip() if blocks else part) or None


def validator(_: Any) -> Callable[[list[Any]], list[Any]]:
    """For a child: validates (schema, JSON text)."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, ValidationError
    from jsonschema.validators import extend, validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    def unique(_: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        if wanted is True and isinstance(value, list) and len(set(map(_frozen, value))) < len(value):
            yield ValidationError("its items are not all different")

    def judge(item: list[Any]) -> list[Any]:
        schema, text = item
        kind = validator_for(schema, default=Draft202012Validator)
        try:
            kind.check_schema(schema)
            # The package compares every pair of items: an answer of some thousand objects would take minutes.
            checker = extend(kind, {"uniqueItems": unique})(
                schema, registry=Registry(), format_checker=kind.FORMAT_CHECKER
            )
        except SchemaError as error:
            return [False, "", f"the schema is none: {error.message[:200]}"]
        except (RecursionError, ValueError) as error:
            return [False, "", f"the schema cannot be used: {error}"]
        try:
            value = strict_json(text)
        except (ValueError, RecursionError) as error:
            return [False, f"no JSON: {error}", ""]
        try:
            fault = next(iter(checker.iter_errors(value)), None)
        except (Unresolvable, re.error) as error:
            return [False, "", f"the schema cannot be used: {error}"]
        except Exception as error:  # 1e400 has no multiples, "a{9999999999}" is no pattern: the package raises for both
            what = "nested too deeply" if isinstance(error, RecursionError) else f"{type(error).__name__}: {error}"
            try:  # a schema that refers to itself without end has no end for any value
                next(iter(checker.iter_errors(None)), None)
            except RecursionError:
                return [False, "", "the schema refers to itself without end"]
            except Exception:
                return [False, "", f"the schema cannot be used: {what}"]
            return [False, f"it cannot be held against the schema: {what}", ""]
        return [fault is None, "the schema accepts it" if fault is None else _shown(fault.json_path, fault.message), ""]

    return judge


def strict_json(text: str) -> Any:
    """Parse JSON as the standard has it. Raises ValueError."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a key occurs twice")
        return dict(pairs)

    return json.loads(text, parse_constant=refuse, object_pairs_hook=once)


def _frozen(value: Any) -> Any:
    """Equal exactly where JSON Schema has two values equal: 1 is 1.0, and true is not 1."""
    if isinstance(value, dict):
        return "object", frozenset((name, _frozen(each)) for name, each in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_frozen, value))
    return isinstance(value, bool), value


def _shown(path: str, message: str) -> str:
    return f"{path}: {message[:200]}"
