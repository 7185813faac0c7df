"""The definitions of a C++ function in a source text: their parameter lists, where there is more than one."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

# What is opened and not closed ends where it must: a pattern that gives up there begins anew at the next mark.
_ASIDE = re.compile(r'//[^\n]*|/\*.*?(?:\*/|\Z)|"(?:\\.|[^"\\\n])*"?|\'(?:\\.|[^\'\\\n]){1,12}\'', re.DOTALL)
_BODY = re.compile(r"\s*(?:(?:const|noexcept|override|final)\b\s*)*(?:->[^{;]{1,200})?\{")
_ACCESS = re.compile(r"\b(public|private|protected)\s*:(?!:)")
_NAME = re.compile(r"(?<!\w)(\w+)\s*(?:\[\s*\])?$")
_OPENING, _CLOSING = "(<[{", ")>]}"
_MAX_OVERLOADS = 8
_MAX_CALLS = 200
"""Places that are looked at: a program that calls its function more often has defined it by then."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """`declaration` without its default value; `name` is the last word of it."""

    declaration: str
    name: str


@dataclass(frozen=True, slots=True)
class Overload:
    """One definition; `public` as far as access labels tell."""

    parameters: tuple[Parameter, ...]
    public: bool


def overloads_of(source: str, function: str, *, in_class: str | None = None) -> list[Overload]:
    """Every definition of `function`, in the order of the text; at most eight.

    Only those in the body of `in_class`, or, without one, outside of all braces.
    """
    code = _outermost(_body_of(_ASIDE.sub(" ", source), in_class))
    found: list[Overload] = []
    calls = re.finditer(rf"(?<=[\w>*&\s])(?<!->)\b{function}\s*\(", code)
    for match in itertools.islice(calls, _MAX_CALLS):
        if len(found) == _MAX_OVERLOADS:
            break
        end = _closing(code, match.end())
        if end is None or not _BODY.match(code, end + 1):  # a call, or a mere declaration
            continue
        parameters = _parameters(code[match.end() : end])
        if parameters is not None and all(parameters != other.parameters for other in found):
            labels = _ACCESS.findall(code, 0, match.start())
            found.append(Overload(parameters, public=not labels or labels[-1] == "public"))
    return found


def _body_of(code: str, name: str | None) -> str:
    if name is None:
        return code
    opened = re.search(rf"\b(class|struct)\s+{name}\b[^;{{]{{0,500}}\{{", code)
    if opened is None:
        return ""
    return ("private: " if opened[1] == "class" else "public: ") + code[opened.end() :]


def _outermost(code: str) -> str:
    """What stands outside of braces (the braces stay), up to one that closes more than was opened."""
    kept, depth = [], 0
    for char in code:
        depth -= char == "}"
        if depth < 0:
            break
        if depth == 0:
            kept.append(char)
        depth += char == "{"
    return "".join(kept)


def _closing(code: str, position: int) -> int | None:
    depth = 1
    for at in range(position, min(len(code), position + 2_000)):
        depth += {"(": 1, ")": -1}.get(code[at], 0)
        if depth == 0:
            return at
    return None


def _parameters(text: str) -> tuple[Parameter, ...] | None:
    """None where one of them has no name."""
    parameters = []
    for part in _split(text):
        declaration = part.partition("=")[0].strip()
        name = _NAME.search(declaration)
        if name is None or name.start() == 0:
            return None
        parameters.append(Parameter(declaration, name[1]))
    return tuple(parameters)


def _split(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in _OPENING) - (char in _CLOSING)
        if char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [part for part in [*parts, text[start:]] if part.strip() not in ("", "void")]
