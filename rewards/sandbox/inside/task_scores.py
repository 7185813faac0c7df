"""The scorers of `reasoning-gym`, in a box: one answer, one process.

The package is imported once, by the warm interpreter that boxes are forked from. Its scorers are third-party code that
may evaluate the answer: they are called with the tripwire armed.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import math
import warnings
from collections.abc import Callable
from typing import Any

from rayzero.rewards.sandbox.inside import tripwire

NUM_PASSES = 8
"""The interpreter specialises code that it has run a few times."""
Scorer = Callable[[Any, dict[str, Any]], Any]


@functools.cache
def scorer_of(task: str) -> Scorer:
    """The task's own score function."""
    from reasoning_gym import get_score_answer_fn

    function: Scorer = get_score_answer_fn(task)
    return function


def warm() -> None:
    """Import the package, make its scorers, and run what most of them run: a fork has it all, at full speed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a package that it imports
        from reasoning_gym.factory import DATASETS
        from sympy import diff, parse_expr, simplify

        for task in DATASETS:
            with contextlib.suppress(Exception):  # one that cannot be made without parameters scores nothing
                scorer_of(task)
        for number in range(NUM_PASSES):
            simplify(diff(parse_expr(f"x**2*sin(x)/2 + 3*(1 + {number})"), "x"))


def score(job: dict[str, Any]) -> dict[str, Any]:
    """`{"score": 0 … 1}`, or `{"refused": why}` for an answer that is not evaluated, or `{"raised": …}`.

    A scorer that raises over the answer but not over the task's own has met a wrong answer.
    """
    task, answer = job["task"], job["answer"]
    entry = json.loads(job["entry"])
    gc.disable()  # a collection would copy every page that the fork shares
    judge, wire = scorer_of(task), tripwire.Tripwire()
    wire.arm()
    try:
        value = judge(answer, entry)
    except Exception as error:
        if wire.refused:
            return {"refused": wire.refused}
        judge(entry["answer"], entry)
        return {"score": 0.0, "raised": type(error).__name__}
    if wire.refused:
        return {"refused": wire.refused}
    number = float(value)
    return {"score": min(1.0, max(0.0, number)) if math.isfinite(number) else 0.0}
