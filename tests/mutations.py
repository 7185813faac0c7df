"""Recipes, overrides and files of prompts that no one would write on purpose: the same for the same seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel

from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.section_classes import models_in

VALUES: tuple[Any, ...] = (
    None,
    "",
    " ",
    "x",
    "auto",
    [],
    {},
    [[]],
    [None],
    {"": 1},
    {"kind": "math"},
    {"kind": "nothing"},
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    7,
    64,
    0.5,
    1e-9,
    -0.0,
    1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    2**31,
    2**63,
    10**30,
    -(2**64),
    "1",
    "1e3",
    "0x10",
    "½",
    "nan",
    "on",
    "é 😀",
    "\u202e",
    "\x1b[31m",
    "[/red]",
    "[bold",
    "${",
    "${NOT_SET_HERE}",
    "%s",
    "{}",
    "a" * 5000,
    "a" * 300,
    "a\nb",
    "\x00",
    "\ud83d",
    "../../etc",
    "/",
    "~",
    "~nosuchuser/x",
    "*.jsonl",
    "no/such/file.jsonl",
    "a:b",
    ":",
    "json:loads",
    "no.module:f",
    [1, "a", None],
    {"a": {"b": [1, {"c": 2}]}},
    ["x"] * 300,
    {str(n): n for n in range(300)},
)
"""What is put where something else belongs."""
NUMBERS = (0, 1, 2, 3, 4, 7, 16, 64, 100, 256, 1000, 0.1, 0.5, 0.9, 1.0, 1e-6, True, False, None)
"""What may well be right."""
TEXTS = (
    "\ufeff",
    "\t",
    "\x00",
    "&a [*a]",
    "!!python/object:os.system {}",
    "? [1, 2]\n: x\n",
    "---\n",
    "%YAML 9\n",
    "\x85",
    "<<: *nothing\n",
    "x: &x {y: *x}\n",
    "1: 2\n",
    "null: 3\n",
    "[",
    "}",
    "'",
    '"',
    "key: |\n",
    "2026-11-30: 1\n",
    "=: 1\n",
    "a: 0o777\n",
    "b: 1:30:00\n",
    "c: !!binary x\n",
    "d: !!set {a}\n",
    "e: 2026-13-45\n",
    "- x\n",
    ": :\n",
    "\u2028",
)


def settings_of(root: type[BaseModel], prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Every dotted key that a document can have."""
    for name, field in root.model_fields.items():
        key = f"{prefix}{name}"
        yield key
        for section in models_in(field.annotation) if depth < 4 else ():
            yield from settings_of(section, f"{key}.", depth + 1)


KEYS = tuple(dict.fromkeys(settings_of(Recipe)))


def mutated_recipe(good: dict[str, Any], chance: random.Random) -> str:
    """A recipe's text with one to three things wrong, or right by chance."""
    content = copy.deepcopy(good)
    for _ in range(chance.choice((0, 1, 1, 2))):
        _change(content, chance)
    try:
        text = yaml.safe_dump(content, allow_unicode=True)
    except yaml.YAMLError:
        text = repr(content)
    if chance.random() < 0.1:
        place = chance.randrange(len(text) + 1)
        text = text[:place] + chance.choice(TEXTS) + text[place + chance.choice((0, 0, 1, 5)) :]
    if chance.random() < 0.03:
        text = text[: chance.randrange(len(text))]
    return text


def mutated_overrides(chance: random.Random) -> list[str]:
    """Up to three changes, of the kind that slips in while typing."""
    made = []
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2))):
        key = chance.choice(KEYS)
        if chance.random() < 0.3:
            key = chance.choice(
                (
                    "",
                    ".",
                    "..",
                    f"{key}.x",
                    f"{key}.0",
                    f".{key}",
                    f"{key}.",
                    key[:-1],
                    key.upper(),
                    "data.train.0.kind",
                    "1",
                    "data.train.7",
                    "data.train.-1",
                    "data.train.99999999999999999999.path",
                    "reward.rubrics.default.r",
                    "reward.rubrics.default.r.kind",
                    "data.train.0.columns.answer",
                    "data.train.0",
                    "²",
                    "data.train.²",
                )
            )
        value = chance.choice(VALUES if chance.random() < 0.5 else NUMBERS)
        shown = value if isinstance(value, str) else json.dumps(value, default=str)
        made.append(chance.choice((f"{key}={shown}", f"{key}={shown}", f"{key}={shown}", key, f"{key}:{shown}")))
    return made


def mutated_rows(chance: random.Random) -> bytes:
    """Lines of prompts, most of them whole, some not."""
    lines = []
    for number in range(12):
        row: dict[str, Any] = {"prompt": f"{number}+1=", "answer": str(number + 1)}
        if chance.random() < 0.03:
            row[chance.choice(("prompt", "answer", "messages", "x", "source"))] = chance.choice(VALUES)
        if chance.random() < 0.01:
            row.pop(chance.choice(tuple(row)))
        line = json.dumps(row)
        if chance.random() < 0.01:
            line = chance.choice(
                ("[" * 3000, "1" * 6000, '{"a":' * 800, "null", "[]", "{}", "nan", '"x"', line[:-5], line + "}")
            )
        lines.append(line.encode())
    content = bytearray(b"\n".join(lines) + b"\n")
    for _ in range(chance.choice((0, 0, 0, 0, 1, 4))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content[: chance.randrange(len(content))]) if chance.random() < 0.05 else bytes(content)


def _change(content: Any, chance: random.Random) -> None:
    places = list(_places(content))
    holder, key = chance.choice(places)
    kind = chance.random()
    if kind < 0.45:
        holder[key] = copy.deepcopy(chance.choice(VALUES))  # the next change may change it
    elif kind < 0.55:
        del holder[key]
    elif kind < 0.65:
        holder[key] = [holder[key]]
    elif kind < 0.75 and isinstance(holder, dict):
        holder[f"{key}s"] = holder.pop(key)
    elif kind < 0.85:
        other, at = chance.choice(places)
        other_value = copy.deepcopy(other[at]) if _has(other, at) else None
        if _has(holder, key):
            holder[key] = other_value
    else:
        wanted = chance.choice(VALUES if chance.random() < 0.3 else NUMBERS)
        _set(content, chance.choice(KEYS).split("."), copy.deepcopy(wanted))


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key])


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _set(content: Any, keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        following = content.get(key) if isinstance(content, dict) else None
        if isinstance(following, list) and following:
            following = following[0]
        if not isinstance(following, dict):
            return
        content = following
    if isinstance(content, dict):
        content[keys[-1]] = value
