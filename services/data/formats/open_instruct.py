"""open-instruct's RLVR data: `messages`, `ground_truth`, and `dataset`, which says how the answer is judged.

{"messages": [{role, content}], "ground_truth": "18", "dataset": "gsm8k"}
`ground_truth` may be a list, and for `ifeval` JSON text: {"func_name": "verify_paragraph_count", "N": 3, …} or
[{"instruction_id": [...], "kwargs": [...]}].
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from rayzero.services.data.formats.columns import gold, kind_of, parsed_text, required
from rayzero.services.data.formats.ifeval import instruction_of
from rayzero.services.data.formats.problem import Problem, PublishedFormat, RowFault, Values
from rayzero.services.data.formats.programs import code_spec

_TRUTH = "ground_truth"
_MAX_LITERAL_CHARS = 100_000


def read(values: Values) -> Problem:
    """A row's problem. Raises RowFault."""
    messages, truth = required(values, "messages"), required(values, _TRUTH)
    name = _dataset(values)
    if "ifeval" in name or name.startswith("if_"):
        return Problem(prompt=messages, answer=_instructions(truth), task="instructions")
    if "code" in name:
        return Problem(prompt=messages, answer=code_spec(_tests(truth), what=f"column {_TRUTH!r}"), task="code")
    if name in ("gsm8k", "math") or "math" in name or "gsm" in name:
        return Problem(prompt=messages, answer=gold(truth, f"column {_TRUTH!r}"), task="math")
    if name.startswith("string_") or name in ("re_search", "nq", "triviaqa", "simpleqa"):
        return Problem(prompt=messages, answer=gold(truth, f"column {_TRUTH!r}"), task="exact")
    raise RowFault("unsupported", f"column 'dataset' is {name!r}: math, gsm8k, code, ifeval and string_… are read")


def _dataset(values: Values) -> str:
    found = required(values, "dataset")
    first = found[0] if isinstance(found, list) and len(found) == 1 else found
    if not isinstance(first, str) or not first:
        raise RowFault("wrong type", f"column 'dataset' must name one data set, not {kind_of(found)}")
    return first.lower()


def _single(truth: Any) -> Any:
    return truth[0] if isinstance(truth, list) and len(truth) == 1 and isinstance(truth[0], str) else truth


def _tests(truth: Any) -> Any:
    """Tests as JSON text, or a list of assertions."""
    found = _single(truth)
    if isinstance(found, str) and found.lstrip()[:1] in ("[", "{"):
        return parsed_text(found, f"column {_TRUTH!r}")
    return [found] if isinstance(found, str) else found


def _instructions(truth: Any) -> list[dict[str, Any]]:
    found = _single(truth)
    if isinstance(found, str):
        found = _spelt(found)
    found = found if isinstance(found, list) else [found]
    instructions = [each for part in found for each in instruction_of(part)]
    if not instructions:
        raise RowFault("no tests", f"column {_TRUTH!r} holds no instruction: every answer would pass")
    return instructions


def _spelt(truth: str) -> Any:
    """JSON text, or the Python literal that some of these sets have in its place."""
    try:
        return parsed_text(truth, f"column {_TRUTH!r}")
    except RowFault as fault:
        try:
            found = ast.literal_eval(truth) if len(truth) <= _MAX_LITERAL_CHARS else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found = None
        if not isinstance(found, list | Mapping):
            raise fault from None
        return found


OPEN_INSTRUCT = PublishedFormat(
    name="open_instruct",
    about="open-instruct's RLVR data",
    marks=("messages", _TRUTH, "dataset"),
    reads=frozenset(("messages", _TRUTH)),
    read=read,
)
