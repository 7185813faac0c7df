"""Every regular expression of a folder, and strings that make a pattern of more than linear time show it."""

from __future__ import annotations

import ast
import importlib
import random
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from re import _constants as sre
    from re import _parser as sre_parser

CALLS = {"compile", "match", "search", "fullmatch", "sub", "split", "findall", "finditer"}
ALPHABET = " \n\ta1.,-_()[]{}\\\"'`*/<>=:;⟪⟫中$|&%^~#@!?+\u0661xIi"
SUFFIXES = ("\x00", "\n\x00")


@dataclass(frozen=True)
class Found:
    """A pattern, where it stands, and how it is used."""

    place: str
    pattern: re.Pattern[str]
    call: str

    def run(self, text: str) -> None:
        """As the code does: `match` and `fullmatch` at the beginning, everything else at every place."""
        if self.call in ("match", "fullmatch"):
            getattr(self.pattern, self.call)(text)
        else:
            for _ in self.pattern.finditer(text):
                pass


def patterns_of(folder: Path, package: str) -> list[Found]:
    """All patterns in the Python files of `folder`, whose modules are `package`'s."""
    found: list[Found] = []
    for file in sorted(folder.rglob("*.py")):
        parts = [package, *file.relative_to(folder).with_suffix("").parts]
        name = ".".join(part for part in parts if part != "__init__")
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if not any(isinstance(node, ast.Attribute) and _is_re(node) for node in ast.walk(tree)):
            continue
        module = importlib.import_module(name)
        found += _found_in(module, tree, str(file.relative_to(folder)))
    return found


def _found_in(module: Any, tree: ast.Module, place: str) -> Iterator[Found]:
    used = _uses(tree)
    for name, value in vars(module).items():
        for each in value.values() if isinstance(value, dict) else (value,):
            if isinstance(each, re.Pattern) and isinstance(each.pattern, str):
                calls = used.get(name) or {"finditer"}
                yield from (Found(f"{place}:{name}", each, call) for call in sorted(calls))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_re(node.func):
            made = _compiled(node, module)
            if made is not None and not any(made is other for other in vars(module).values()):
                yield Found(
                    f"{place}:{node.lineno}", made, "finditer" if node.func.attr == "compile" else node.func.attr
                )


def _is_re(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "re" and node.attr in CALLS


def _uses(tree: ast.Module) -> dict[str, set[str]]:
    """By name of a pattern: the methods that are called on it."""
    used: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in CALLS:
            used.setdefault(node.value.id, set()).add(node.attr)
    return used


def _compiled(call: ast.Call, module: Any) -> re.Pattern[str] | None:
    """The pattern of a call; names that are no global of the module stand for a word."""
    code = compile(ast.Expression(call.args[0]), "<pattern>", "eval")
    flags = next((keyword.value for keyword in call.keywords if keyword.arg == "flags"), None)
    index = {"sub": 4, "split": 3}.get(call.func.attr, 2)  # type: ignore[attr-defined]
    flags = flags or (call.args[index] if len(call.args) > index else None)
    if call.func.attr == "compile" and len(call.args) > 1:  # type: ignore[attr-defined]
        flags = call.args[1]
    try:
        text = eval(code, vars(module), _Words())
        number = 0 if flags is None else eval(compile(ast.Expression(flags), "<flags>", "eval"), vars(module))
        return re.compile(text, number) if isinstance(text, str) else None
    except Exception:
        return None


class _Words(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        raise KeyError(name)


@dataclass(frozen=True)
class Attack:
    """A string that fails late, of any length: what the pattern repeats, repeated, behind what it begins with."""

    prefix: str
    pumped: str
    suffix: str

    def of(self, length: int) -> str:
        """About so long."""
        return self.prefix + self.pumped * (length // len(self.pumped)) + self.suffix


def attacks(pattern: re.Pattern[str], seed: int = 0) -> Iterator[Attack]:
    """Attacks made from the pattern itself, and repetitions of single characters."""
    rng = random.Random(seed)
    seen: set[tuple[str, str]] = set()
    tree = sre_parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)
    pieces = [("", char) for char in ALPHABET]
    for _ in range(2):
        pieces += list(_pumps(tree, "", rng))
    for prefix, pumped in pieces:
        if not pumped or (prefix, pumped) in seen:
            continue
        seen.add((prefix, pumped))
        yield Attack(prefix, pumped, SUFFIXES[len(seen) % 2])
        if prefix:
            yield Attack("", prefix + pumped, SUFFIXES[0])


def _pumps(tree: Any, prefix: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """What each repetition repeats, and a text that leads there."""
    for operator, argument in tree:
        if operator in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            low, high, body = argument
            if high > 20:
                yield prefix, _sample(body, rng)
            yield from _pumps(body, prefix, rng)
            prefix += _sample(body, rng) * min(max(low, 0), 3)
            continue
        if operator is sre.SUBPATTERN:
            yield from _pumps(argument[-1], prefix, rng)
        elif operator is sre.BRANCH:
            for branch in argument[1]:
                yield from _pumps(branch, prefix, rng)
        elif operator in (sre.ASSERT, sre.ASSERT_NOT):
            yield from _pumps(argument[1], prefix, rng)
            continue
        elif operator is sre.ATOMIC_GROUP:
            yield from _pumps(argument, prefix, rng)
        prefix += _sample([(operator, argument)], rng)


def _sample(tree: Any, rng: random.Random) -> str:
    """A text that the tree matches, more or less."""
    return "".join(_piece(operator, argument, rng) for operator, argument in tree)


def _piece(operator: Any, argument: Any, rng: random.Random) -> str:
    if operator is sre.LITERAL:
        return chr(argument)
    if operator in (sre.ANY, sre.NOT_LITERAL):
        return "a" if argument != ord("a") else "b"
    if operator is sre.IN:
        return _member(argument, rng)
    if operator in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        low, high, body = argument
        return _sample(body, rng) * min(low or rng.choice((0, min(high, 1))), 5)
    if operator is sre.SUBPATTERN:
        return _sample(argument[-1], rng)
    if operator is sre.ATOMIC_GROUP:
        return _sample(argument, rng)
    if operator is sre.BRANCH:
        return _sample(rng.choice(argument[1]), rng)
    return ""


def _member(items: Any, rng: random.Random) -> str:
    if items[0][0] is sre.NEGATE:
        return next((char for char in "a1 ~中" if not any(_holds(item, char) for item in items[1:])), "\x01")
    return _of(rng.choice(items))


def _of(item: tuple[Any, Any]) -> str:
    kind, value = item
    if kind is sre.LITERAL:
        return chr(value)
    if kind is sre.RANGE:
        return chr(value[0])
    return {sre.CATEGORY_DIGIT: "1", sre.CATEGORY_SPACE: " ", sre.CATEGORY_WORD: "a"}.get(value, "~")


def _holds(item: tuple[Any, Any], char: str) -> bool:
    kind, value = item
    if kind is sre.LITERAL:
        return chr(value) == char
    if kind is sre.RANGE:
        return value[0] <= ord(char) <= value[1]
    category = {sre.CATEGORY_DIGIT: r"\d", sre.CATEGORY_SPACE: r"\s", sre.CATEGORY_WORD: r"\w",
                sre.CATEGORY_NOT_SPACE: r"\S", sre.CATEGORY_NOT_WORD: r"\W", sre.CATEGORY_NOT_DIGIT: r"\D"}  # fmt: skip
    return re.match(category[value], char) is not None
