"""A sample of rows, each graded with its own reference solution: a program in the sandbox, a worked answer by math.

What the row's own solution does not earn, no model can: the tests, the limits or the solution are at fault.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rayzero.rewards.base import Case, Context, Reward, Score
from rayzero.rewards.kinds.code_reward import code_reward
from rayzero.rewards.kinds.math_reward import gold_texts, math_reward
from rayzero.services.data.checking.inspection import Inspection
from rayzero.services.data.formats.problem import RowFault
from rayzero.services.data.sources.rows import mapped
from rayzero.services.schema.errors import ActorStartError, RecipeError

PACKAGES = ("numpy", "sortedcontainers", "scipy", "pandas", "networkx", "sympy")
"""What solutions to programming problems import besides the standard library."""
_NO_MODULE = re.compile(r"No module named '(\w+)")
_BARE, _FALLBACK = "bare", "fallback"


def grade_references(inspection: Inspection, count: int, num_workers: int) -> None:
    """Grade up to `count` rows, spread over the file; what fails is noted in the report."""
    asyncio.run(_grade(inspection, count, num_workers))


async def _grade(inspection: Inspection, count: int, num_workers: int) -> None:
    cases: dict[str, list[tuple[str, Case]]] = {"code": [], "math": []}
    chosen = np.unique(np.linspace(0, len(inspection.places) - 1, min(count, len(inspection.places))).astype(int))
    for index in chosen if len(inspection.places) else ():
        found = _case(inspection, inspection.places[int(index)])
        if found is not None:
            task, origin, case = found
            cases[task].append((origin, case))
    if cases["math"]:
        await _score(inspection, math_reward(num_children=num_workers, fallback_column=_FALLBACK), cases["math"])
    if cases["code"]:
        try:
            await _score(inspection, code_reward(num_parallel=num_workers, bare_column=_BARE), cases["code"])
        except ActorStartError as error:
            inspection.report.sample.with_solution -= len(cases["code"])
            inspection.report.sample.skipped = str(error)


def _case(inspection: Inspection, place: int) -> tuple[str, str, Case] | None:
    """The row at `place` with what should be right for it; None where there is nothing to grade."""
    try:
        row = inspection.table[place]
        prompt = mapped(row, inspection.settings, inspection.table.origin(place))
        solution, task = inspection.solution(row), inspection.task_of(prompt)
    except (RowFault, RecipeError):
        return None
    sample = inspection.report.sample
    if task == "code" and solution is not None:
        sample.with_solution += 1
        return task, prompt.prompt_id, Case(prompt=replace(prompt, columns={_BARE: True}), text=solution)
    if task != "math":
        return None
    if solution is not None and ("\\boxed" in solution or "####" in solution):
        sample.with_solution += 1
        text = solution
    else:
        sample.with_gold += 1
        gold = (gold_texts(prompt.answer) or ("",))[0]
        text = gold if "\\boxed" in gold or "####" in gold else f"\\boxed{{{gold}}}"
    return task, prompt.prompt_id, Case(prompt=replace(prompt, columns={_FALLBACK: ("hashes",)}), text=text)


async def _score(inspection: Inspection, reward: Reward, cases: Sequence[tuple[str, Case]]) -> None:
    try:
        await reward.start()
        scores = await reward.score([case for _, case in cases], Context())
    finally:
        await reward.close()
    for (origin, _), score in zip(cases, scores, strict=True):
        _note(inspection, origin, score)


def _note(inspection: Inspection, origin: str, score: Score) -> None:
    packages = inspection.report.packages
    if (lacks := _NO_MODULE.search(score.reason)) and lacks[1] in PACKAGES and lacks[1] not in packages:
        packages.append(lacks[1])
    if score.is_error:
        inspection.report.add("reference cannot be graded", origin, f"{score.cause}: {score.reason}")
    elif score.value == 1.0:
        inspection.report.sample.correct += 1
    else:
        inspection.report.add("reference fails", origin, score.reason)
