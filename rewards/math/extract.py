r"""Where the final answer stands in a completion: the last \boxed{…} after the last </think>.

One pass over the text, so a hostile completion of megabytes costs milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.schema.config.math import Fallback

_BOX = re.compile(
    r"\\(?:f?box(?:ed)?|framebox)(?![A-Za-z])\s*(?:\{|(?P<bare>\d[\d.,/]*|[A-Za-z](?![A-Za-z_^(]| +[A-Za-z])))"
)
"""With braces; or without, as TeX has it, around one digit or letter. More digits are no number that TeX would box."""
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?")
_MAX_SCANNED_CHARS = 1_000_000


@dataclass(frozen=True, slots=True)
class Extracted:
    """Exactly one of the two is set."""

    answer: str | None = None
    problem: str | None = None
    """Why there is no answer: fit for a verdict's reason."""


def extract(completion: str, fallbacks: Sequence[Fallback] = ()) -> Extracted:
    """Find the final answer. A completion without think tags is all answer."""
    part = answer_part(completion[-_MAX_SCANNED_CHARS:])
    if part is None:
        return Extracted(problem="the thought never ends: no </think>")
    boxes = list(_BOX.finditer(part))
    if boxes:
        return _last_box(part, boxes)
    for fallback in fallbacks:
        found = _after_hashes(part) if fallback == "hashes" else _last_number(part)
        if found is not None:
            return Extracted(answer=found)
    return Extracted(problem="no \\boxed{} in the answer part")


def answer_part(completion: str) -> str | None:
    """What follows the last </think>; all of it where there are no tags; None where a thought was never closed."""
    _, closed, part = completion.rpartition("</think>")
    before_reopened, reopened, _ = part.partition("<think>")
    if reopened and not closed and not before_reopened.strip():
        return None
    return before_reopened


def _last_box(part: str, boxes: list[re.Match[str]]) -> Extracted:
    end_of = _matching_braces(part)
    start, bare = boxes[-1].end(), (boxes[-1]["bare"] or "").rstrip(".,")
    if len(bare) > 1:
        return Extracted(problem="the last \\boxed has no braces around its number")
    if not bare and start not in end_of:
        return Extracted(problem="the last \\boxed{ is never closed")
    end = start if bare else end_of[start]
    # A box inside a closed box is part of the outer answer: \boxed{3 \text{ or } \boxed{4}} is a hedge, not 4.
    outer = min((box.end() for box in boxes if end_of.get(box.end(), -1) >= end), default=None)
    answer = bare if outer is None else part[outer : end_of[outer]]
    if not answer.strip():
        return Extracted(problem="the last \\boxed{} is empty")
    return Extracted(answer=answer)


def _matching_braces(text: str) -> dict[int, int]:
    """Position after each `{` that is closed -> position of its `}`; escaped braces do not count."""
    end_of: dict[int, int] = {}
    stack: list[int] = []
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            stack.append(match.end())
        elif match.group() == "}" and stack:
            end_of[stack.pop()] = match.start()
    return end_of


def _after_hashes(part: str) -> str | None:
    _, found, rest = part.rpartition("####")
    line = rest.strip().splitlines()[0].strip() if rest.strip() else ""
    return line if found and line else None


def _last_number(part: str) -> str | None:
    found = None
    for match in _NUMBER.finditer(part):
        found = match.group()
    return found
