"""verl's parquet, and what follows it: PRIME's Eurus-2-RL-Data, DAPO-Math-17k, Skywork-OR1, DeepScaleR.

{"data_source": …, "prompt": [{role, content}], "ability": …, "reward_model": {"style": "rule", "ground_truth": …},
 "extra_info": {…}}

A ground truth that is (JSON text of) tests is code; {"target": […]} is a question with several right texts; every other
is a gold answer of math.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayzero.services.data.formats.columns import gold, optional_text, parsed_text, required
from rayzero.services.data.formats.problem import Problem, PublishedFormat, RowFault, Values
from rayzero.services.data.formats.programs import code_spec, fenced
from rayzero.services.schema.nested import find

_TRUTH = "reward_model.ground_truth"
_CODE_ABILITIES = ("code", "coding", "programming")
_TESTS = frozenset(("inputs", "outputs", "test_cases", "test_list", "tests", "assert"))


def read(values: Values) -> Problem:
    """A row's problem. Raises RowFault."""
    prompt, truth = required(values, "prompt"), required(values, _TRUTH)
    if optional_text(values, "reward_model.style") == "model":
        raise RowFault("unsupported", "reward_model.style is 'model': this answer wants a model as its judge")
    what = f"column {_TRUTH!r}"
    is_code = optional_text(values, "ability").lower() in _CODE_ABILITIES
    if isinstance(truth, str) and not is_code and not truth.lstrip().startswith("{"):
        return Problem(prompt=prompt, answer=gold(truth, what), task="math", solution=_worked(values))
    if isinstance(truth, str):
        truth = _tests(truth, what) if is_code else _object(truth)
    if isinstance(truth, Mapping):
        truth = {name: value for name, value in truth.items() if value is not None}  # a parquet column has every key
    if is_code or (isinstance(truth, Mapping) and _TESTS & truth.keys()):
        spec = code_spec(truth, what=what)
        return Problem(prompt=prompt, answer=spec, task="code", solution=_program(values))
    if isinstance(truth, Mapping):
        return Problem(prompt=prompt, answer=_texts(truth, what), task="exact")
    return Problem(prompt=prompt, answer=gold(truth, what), task="math", solution=_worked(values))


def _tests(truth: str, what: str) -> Any:
    """Tests are JSON text; anything else under the ability `code` is one piece of test code."""
    if truth.lstrip()[:1] in ("{", "["):
        return parsed_text(truth, what)
    return [truth] if truth.strip() else []


def _object(truth: str) -> Any:
    """JSON text of an object; the set `{1, 2}` is none, and stays the answer that it is."""
    try:
        return parsed_text(truth, "")
    except RowFault:
        if '"' in truth:  # begun as JSON, and broken: no answer of math holds such quotes
            raise RowFault("broken JSON", f"column {_TRUTH!r} is no JSON that can be read") from None
        return truth


def _texts(truth: Mapping[str, Any], what: str) -> Any:
    if "target" not in truth or "numbers" in truth:
        keys = ", ".join(truth) or "no keys"
        raise RowFault(
            "unsupported",
            f"{what} is an object of {keys}, which no reward reads: name columns, and a reward of your own",
        )
    return gold(truth["target"], what)


def _worked(values: Values) -> str | None:
    """The worked solution that GSM8K's rows carry, where it states its answer."""
    solution = find(values, "extra_info.answer")
    return solution if isinstance(solution, str) and ("####" in solution or "\\boxed" in solution) else None


def _program(values: Values) -> str | None:
    solution = optional_text(values, "extra_info.solution") or optional_text(values, "extra_info.reference_solution")
    return fenced(solution) or None


def _format(name: str, about: str) -> PublishedFormat:
    return PublishedFormat(
        name=name,
        about=about,
        marks=("prompt", _TRUTH),
        reads=frozenset(("prompt", "reward_model")),
        read=read,
    )


VERL = _format("verl", "verl's parquet: `prompt` and `reward_model.ground_truth`")
PRIME = _format("prime", "PRIME's Eurus-2-RL-Data: verl's columns, code tests as JSON text")
DAPO = _format("dapo", "DAPO-Math-17k: verl's columns, prompts that ask for `Answer: …`")
