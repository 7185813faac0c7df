r"""Where the final answer stands in a completion: the last \boxed{…} after the last </think>.

Boxes that nothing parts but `and`, `or`, commas and math marks are one list as well: `\boxed{2} and \boxed{-7}`.
One pass over the text, so a hostile completion of megabytes costs milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from rayzero.rewards.answer_part import answer_part
from rayzero.rewards.math.reading.unboxed import unboxed_answer

if TYPE_CHECKING:
    from rayzero.services.schema.config.math import Fallback

_BOX = re.compile(
    r"\\(?:f?box(?:ed)?|framebox)(?![A-Za-z])\s*(?:\{|(?P<bare>\d[\d.,/]*|[A-Za-z](?![A-Za-z_^(]| +[A-Za-z])))"
)
"""With braces; or without, as TeX has it, around one digit or letter. More digits are no number that TeX would box."""
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_MAX_SCANNED_CHARS = 1_000_000
_MAX_JOINED = 40
_MAX_GAP_CHARS = 80
_MARKS = re.compile(r"\\(?:text|textbf|mathrm|quad|qquad|enspace|[()\[\],;:! ])|[{}$*~&]")
_LABEL = r"(?:[A-Za-z]|\\[a-z]{1,20})(?: {0,9}_ {0,9}(?:\{ {0,9})?\w{1,40} {0,9}\}?)? {0,9}="
_CONNECTIVES = re.compile(
    rf"(?:[\s,;、，；]|\b(?:and|or)\b|或者?|和|与|以及|及)*(?:(?P<label>(?<!\w){_LABEL})\s*)?", re.IGNORECASE
)
_LABEL_BEFORE = re.compile(rf"(?<![\w\\=+\-*/^])(?P<label>{_LABEL})\s*$")
_VISIBLE = re.compile(r"[^\s\\{}$~,;]")
_OR = re.compile(r"\bor\b|或", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Extracted:
    """Exactly one of the first two is set."""

    answer: str | None = None
    problem: str | None = None
    """Why there is no answer: fit for a verdict's reason."""
    boxes: tuple[str, ...] = ()
    """What each box of the answer holds, where it is a list of boxes."""


@dataclass(frozen=True, slots=True)
class _Box:
    start: int
    end: int
    text: str


def extract(completion: str, fallbacks: Sequence[Fallback] = (), *, prefilled: bool = False) -> Extracted:
    """Find the final answer. A completion without think tags is all answer, unless the prompt opened the thought."""
    part = answer_part(completion, prefilled=prefilled)
    if part is None:
        return Extracted(problem="the thought never ends: no </think>")
    part = part[-_MAX_SCANNED_CHARS:]
    matches = list(_BOX.finditer(part))
    if matches:
        return _last_boxes(part, matches)
    for fallback in fallbacks:
        found = unboxed_answer(part, fallback)
        if found is not None:
            return Extracted(answer=found)
    return Extracted(problem="no \\boxed{} in the answer part")


def boxed_answers(text: str) -> tuple[str, ...]:
    """Every answer that a text boxes, in order: the text of one box, or of a list of boxes. None of them is blank."""
    matches, found = list(_BOX.finditer(text)), []
    boxes = _closed_boxes(text, matches) if matches else []
    while boxes:
        run = _run(text, boxes)
        found.append(_joined(text, run))
        boxes = boxes[: -len(run)]
    return tuple(answer for answer in reversed(found) if answer.strip())


def _last_boxes(part: str, matches: list[re.Match[str]]) -> Extracted:
    start, bare = matches[-1].end(), (matches[-1]["bare"] or "").rstrip(".,")
    if len(bare) > 1:
        return Extracted(problem="the last \\boxed has no braces around its number")
    boxes = _closed_boxes(part, matches)
    if not boxes or boxes[-1].end < start:
        return Extracted(problem="the last \\boxed{ is never closed")
    if not boxes[-1].text.strip():
        return Extracted(problem="the last \\boxed{} is empty")
    run = _run(part, boxes)
    return Extracted(answer=_joined(part, run), boxes=tuple(box.text for box in run) if len(run) > 1 else ())


def _closed_boxes(part: str, matches: list[re.Match[str]]) -> list[_Box]:
    r"""The outermost ones: a box inside a box is part of its answer, `\boxed{3 \text{ or } \boxed{4}}` is a hedge."""
    end_of = _matching_braces(part)
    boxes: list[_Box] = []
    for match in matches:
        start, bare = match.end(), (match["bare"] or "").rstrip(".,")
        if len(bare) > 1 or (not bare and start not in end_of) or (boxes and start <= boxes[-1].end):
            continue
        end = start if bare else end_of[start] + 1
        boxes.append(_Box(match.start(), end, bare or part[start : end - 1]))
    return boxes


def _run(part: str, boxes: list[_Box]) -> list[_Box]:
    """The last box and those before it from which only connectives part it."""
    run = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        gap = part[box.end : run[0].start]
        if (
            len(gap) > _MAX_GAP_CHARS
            or len(run) == _MAX_JOINED
            or not (_VISIBLE.search(box.text) and _VISIBLE.search(run[0].text))
        ):
            break
        if _CONNECTIVES.fullmatch(_MARKS.sub(" ", gap)) is None:
            break
        run.insert(0, box)
    return run


def _joined(part: str, run: list[_Box]) -> str:
    """One list of the boxes, each with the label that stands before it where every one has a label."""
    if len({box.text.strip() for box in run}) == 1:
        return run[0].text
    labels = []
    for box in run:
        before = _MARKS.sub(" ", part[max(0, box.start - _MAX_GAP_CHARS) : box.start])
        labels.append(match["label"] if (match := _LABEL_BEFORE.search(before)) is not None else "")
    by_or = any(_OR.search(part[one.end : other.start]) for one, other in pairwise(run))
    texts = [f"{label}{box.text}" if all(labels) else box.text for label, box in zip(labels, run, strict=True)]
    return (" or " if by_or else ", ").join(texts)


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
