"""Lines of `rayzero grade`: one JSON object a line in, one out.

{"id": 1, "completion": "<think>…</think>\\boxed{9}", "answer": "9"}
{"id": 1, "reward": 1.0, "status": "correct", "components": {"math": 1.0}, "reason": "…", "seconds": 0.002, …}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rayzero.rewards.base import THINK_OPEN, Case, Score
from rayzero.services.schema.languages import language_code
from rayzero.services.schema.messages import ChatMessage, Prompt
from rayzero.services.schema.nested import MISSING, find

Line = Mapping[str, Any]
FALLBACKS = ("hashes", "last_number", "answer_line", "answer_tags", "final_answer")
"""Those of `MathSettings`, which would be slow to import for one case."""
ANSWER_FROM = ("box", "answer_tags", "answer_line", "final_answer", "whole")
STATED_COLUMNS = (
    "answer_from",
    "options",
    "aliases",
    "match",
    "allow_prose",
    "partial",
    "case_sensitive",
    "setup",
    "order",
)
"""Keys of a line that stand for the recipe's settings."""
STATED_ANSWERS = ("schema", "pattern", "instructions", "query")
"""Other names of `answer`, where it is one of these."""
QUESTION = (ChatMessage(role="user", content=""),)


class BrokenLine(ValueError):
    """A line that cannot be graded; the message says why."""


@dataclass(frozen=True, slots=True)
class GradeLine:
    """One line, read."""

    line_id: Any
    case: Case
    digest: bytes
    """Equal for lines that differ in nothing but their id: they are graded once."""


@dataclass(frozen=True, slots=True)
class LineForm:
    """How the lines of a file are spelt, where they are not as rayzero has them."""

    paths: Mapping[str, str] = field(default_factory=dict)
    """Key -> where it stands in a line, e.g. `{"answer": "reward_model.ground_truth"}`."""
    fallbacks: tuple[str, ...] = ()
    """Of lines that ask for none themselves."""

    def applied(self, line: Line) -> Line:
        """The line as rayzero has it."""
        found = {key: find(line, path) for key, path in self.paths.items()}
        own = {**line, **{key: value for key, value in found.items() if value is not MISSING}}
        if self.fallbacks and own.get("fallback", own.get("fallbacks")) is None:
            own["fallback"] = list(self.fallbacks)
        return own


AS_THEY_ARE = LineForm()


def read_line(raw: bytes, reward: str, form: LineForm = AS_THEY_ARE) -> GradeLine:
    """Parse and check one line for `reward`, one of READERS or `module:function`. Raises BrokenLine."""
    try:
        line = json.loads(raw.decode("utf-8-sig").strip())
    except UnicodeDecodeError as error:
        raise BrokenLine(f"not UTF-8 ({error.reason} at byte {error.start} of the line)") from None
    except json.JSONDecodeError as error:
        raise BrokenLine(f"not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise BrokenLine(f"not JSON that can be read: {error}") from None
    if not isinstance(line, dict):
        raise BrokenLine(f"a JSON object is expected, not {_kind(line)}")
    if form is not AS_THEY_ARE:
        line = form.applied(line)
    if "id" not in line:
        raise BrokenLine("missing `id`")
    prompt_text, answer, columns = READERS.get(reward, _read_custom)(line)
    prompt = Prompt(prompt_id=str(line["id"])[:200], messages=QUESTION, answer=answer, source="grade", columns=columns)
    text = line["code"] if columns.get("bare") else line["completion"]
    rest = {name: value for name, value in line.items() if name != "id"}
    digest = hashlib.blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=16).digest()
    return GradeLine(line["id"], Case(prompt=prompt, text=text, prompt_text=prompt_text), digest)


def write_line(line_id: Any, reward: str, score: Score) -> bytes:
    """One verdict as a line. An error has no reward: `null`, since NaN is not JSON."""
    known = not score.is_error and score.value is not None
    verdict = {
        "id": line_id,
        "reward": score.value if known else None,
        "status": score.status.value,
        "components": {reward: score.value} if known else {},
        "reason": f"{score.cause}: {score.reason}" if score.cause else score.reason,
        "seconds": round(score.seconds, 6),
        "tests": [dict(test) for test in score.tests],
    }
    return json.dumps(verdict).encode() + b"\n"


def _read_math(line: Line) -> tuple[str, Any, Mapping[str, Any]]:
    _text(line, "completion")
    answer = _given(line, "answer")
    golds = answer if isinstance(answer, list) else [answer]
    if not golds or any(isinstance(gold, bool) or not isinstance(gold, str | int | float) for gold in golds):
        raise BrokenLine(f"`answer` must be text, a number or a list of them, not {_kind(answer)}")
    return _prompt_text(line), answer, {"fallback": _fallbacks(line)}


def _read_format(line: Line) -> tuple[str, Any, Mapping[str, Any]]:
    _text(line, "completion")
    return _prompt_text(line), None, {}


def _prompt_text(line: Line) -> str:
    """The end of the prompt: `prompt_text` as it is, or `prefilled` for one that ended in <think>."""
    prefilled, prompt_text = line.get("prefilled"), line.get("prompt_text")
    if prefilled is not None and not isinstance(prefilled, bool):
        raise BrokenLine(f"`prefilled` must be true or false, not {_kind(prefilled)}")
    if prompt_text is not None and not isinstance(prompt_text, str):
        raise BrokenLine(f"`prompt_text` must be text, not {_kind(prompt_text)}")
    return THINK_OPEN if prefilled else prompt_text or ""


def _fallbacks(line: Line) -> tuple[str, ...] | None:
    """What a line asks for itself, in the recipe's spelling; None where it asks for nothing."""
    given = line.get("fallback", line.get("fallbacks"))
    if given is None:
        return None
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else ()
    unknown = [name for name in names if name not in FALLBACKS]
    if unknown or not names:
        raise BrokenLine(f"`fallback` must be one or a list of {', '.join(FALLBACKS)}")
    return names


def _read_stated(line: Line) -> tuple[str, Any, Mapping[str, Any]]:
    """Rewards that compare what an answer states with `answer`, of any kind; they check it themselves."""
    _text(line, "completion")
    own = {name: line[name] for name in STATED_COLUMNS if line.get(name) is not None}
    if own.get("answer_from", "box") not in ANSWER_FROM:
        raise BrokenLine(f"`answer_from` must be one of {', '.join(ANSWER_FROM)}")
    given = next((line[name] for name in ("answer", *STATED_ANSWERS) if line.get(name) is not None), None)
    if given is None:
        raise BrokenLine("missing `answer`")
    return _prompt_text(line), given, own


def _read_language(line: Line) -> tuple[str, Any, Mapping[str, Any]]:
    _text(line, "completion")
    try:
        return "", None, {"target": language_code(_text(line, "target"))}
    except ValueError as error:
        raise BrokenLine(f"`target`: {error}") from None


def _read_code(line: Line) -> tuple[str, Any, Mapping[str, Any]]:
    from rayzero.rewards.code.spec import SpecError, parse

    is_bare = "code" in line
    if line.get("tests") is None and line.get("answer") is not None:
        line = _with_spec(line)
    _text(line, "code" if is_bare else "completion")
    _text(line, "language")
    _given(line, "tests")
    own = ("id", "completion", "code", "prefilled", "prompt_text")
    spec = {name: value for name, value in line.items() if name not in own and value is not None}
    try:
        parse(spec)
    except SpecError as error:
        raise BrokenLine(str(error)) from None
    return _prompt_text(line), spec, {"bare": is_bare}


def _with_spec(line: Line) -> Line:
    """A line whose `answer` is the spec, as a row of training data has it: an object, tests alone, or JSON text."""
    from rayzero.rewards.kinds.code_reward import spec_of

    spec = spec_of(line["answer"])
    if spec is None:
        raise BrokenLine("`answer` must be {language, tests}, tests, or JSON text of either")
    rest = {name: value for name, value in line.items() if name != "answer"}
    return {"language": "python", **rest, **spec}


def _read_custom(line: Line) -> tuple[str, Any, Mapping[str, Any]]:
    """A function of the user's: it gets every key that it does not get otherwise as a column, as in a run."""
    _text(line, "completion")
    prompt = line.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise BrokenLine(f"`prompt` must be text, not {_kind(prompt)}")
    own = ("id", "completion", "answer", "prompt", "prefilled", "prompt_text")
    columns = {name: value for name, value in line.items() if name not in own}
    return _prompt_text(line) or prompt or "", line.get("answer"), columns


def _given(line: Line, name: str) -> Any:
    if line.get(name) is None:
        raise BrokenLine(f"missing `{name}`")
    return line[name]


def _text(line: Line, name: str) -> str:
    value = _given(line, name)
    if not isinstance(value, str):
        raise BrokenLine(f"`{name}` must be text, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


READERS: Mapping[str, Callable[[Line], tuple[str, Any, Mapping[str, Any]]]] = {
    "math": _read_math,
    "code": _read_code,
    "format": _read_format,
    "language": _read_language,
    "exact": _read_stated,
    "choice": _read_stated,
    "json_schema": _read_stated,
    "regex": _read_stated,
    "instructions": _read_stated,
    "sql": _read_stated,
}
