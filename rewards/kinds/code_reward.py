"""Code accuracy: the program in the answer, run against the prompt's tests in the sandbox (rewards/code)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rayzero.rewards.base import THINK_OPEN, Case, Context, Score, failed, score_each, scored
from rayzero.rewards.code.judge import CodeJudge, CodeVerdict
from rayzero.rewards.sandbox.client import SandboxRefusedError
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.sandbox import SandboxSettings
from rayzero.services.schema.errors import ActorStartError
from rayzero.services.schema.messages import VerdictStatus


class CodeReward:
    """1 where every test passes, else 0; with `partial` the share of tests that pass. Owns its sandbox.

    `Prompt.answer` is the spec: `{"language": "python", "tests": [{"assert": "assert add(1, 2) == 3"}]}`.
    `bare_column` names a column of the data row that says that the completion is a program as it stands.
    """

    def __init__(self, judge: CodeJudge, *, partial: bool = False, bare_column: str | None = None) -> None:
        self.judge = judge
        self.partial = partial
        self.bare_column = bare_column

    async def start(self) -> None:
        """Start the sandbox. Raises ActorStartError, with the fix, where this machine cannot isolate."""
        try:
            await self.judge.start()
        except SandboxRefusedError as error:
            raise ActorStartError(str(error)) from None

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case; the judge runs equal (program, tests) pairs once."""
        return await score_each(cases, self._judge, context.deadline)

    async def close(self) -> None:
        """End the sandbox and every program in it."""
        await self.judge.close()

    async def _judge(self, case: Case) -> Score:
        spec = spec_of(case.prompt.answer)
        if spec is None:
            kind = type(case.prompt.answer).__name__
            text = f"the answer of {case.prompt.prompt_id} must be {{language, tests}}, or tests, not {kind}"
            return failed(ErrorCause.BAD_PROMPT, text)
        if self.partial:
            spec = {"scoring": "fraction", **spec}
        is_program = self.bare_column is not None and bool(case.prompt.columns.get(self.bare_column))
        # A thought that the prompt opened is one that the completion may leave open, as if it had opened it itself.
        text = THINK_OPEN + case.text if case.prefilled and not is_program else case.text
        try:
            verdict = await self.judge.run(text, spec, is_program=is_program)
        except SandboxRefusedError as error:
            return failed(ErrorCause.SANDBOX, str(error))
        return _score(verdict)


def spec_of(answer: Any) -> Mapping[str, Any] | None:
    """The spec in an answer: an object with `tests`, tests alone, or JSON text of either; None where it is none."""
    if isinstance(answer, str):
        try:
            answer = json.loads(answer)
        except (ValueError, RecursionError):
            return None
    if isinstance(answer, Mapping):
        return answer if "tests" in answer else {"tests": answer, **_limits(answer)}
    return {"tests": answer} if isinstance(answer, list | tuple) else None


def _limits(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: answer[name] for name in ("language", "time_limit_s", "memory_mb") if answer.get(name) is not None}


def code_reward(
    settings: SandboxSettings | None = None,
    *,
    num_parallel: int,
    partial: bool = False,
    bare_column: str | None = None,
    checkers: Sequence[str] = (),
) -> CodeReward:
    """The reward with a sandbox of its own, running `num_parallel` programs at a time unless the settings say.
    `checkers`: functions that specs may name."""
    settings = settings or SandboxSettings()
    if settings.num_workers is None:
        settings = settings.model_copy(update={"num_workers": num_parallel})
    return CodeReward(CodeJudge(settings, checkers), partial=partial, bare_column=bare_column)


def _score(verdict: CodeVerdict) -> Score:
    fields: dict[str, Any] = {"seconds": _seconds_at_work(verdict), "tests": verdict.tests}
    if verdict.status is VerdictStatus.ERROR:
        return failed(ErrorCause(verdict.cause or ErrorCause.SANDBOX), verdict.reason, **fields)
    return scored(verdict.score, reason=verdict.reason, **fields)


def _seconds_at_work(verdict: CodeVerdict) -> float:
    """Of the tests; waiting for a free CPU is not in it."""
    return sum(float(test["seconds"]) for test in verdict.tests) or verdict.seconds
