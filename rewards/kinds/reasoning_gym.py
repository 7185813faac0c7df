"""Tasks of `reasoning-gym`, judged by the task's own score function: many accept more answers than the one they state.

The answer is what stands in the last box after the last </think>. The functions are the package's, and some evaluate
what they are given: each answer is scored in a sandbox box of its own, by a process that has the package imported and
that evaluates nothing but literals, numbers, names of mathematics and operators (sandbox/inside/tripwire.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from rayzero.rewards.base import Case, Context, Score, failed, score_distinct, scored
from rayzero.rewards.math.reading.extract import extract
from rayzero.rewards.sandbox.client import Sandbox, SandboxConfig, SandboxRefusedError
from rayzero.rewards.sandbox.inside import wire
from rayzero.rewards.sandbox.inside.tripwire import TRIPPED
from rayzero.rewards.sandbox.limits import MIB, Limits, Outcome
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.reward_components import ReasoningGymComponent
from rayzero.services.schema.errors import ActorStartError

TASK_COLUMN, ENTRY_COLUMN = "reasoning_gym_task", "reasoning_gym_entry"
MAX_ANSWER_CHARS = 100_000
_ENDINGS = {
    "cpu": (ErrorCause.CPU, "the scorer used more CPU time than it may"),
    "wall": (ErrorCause.DEADLINE, "the scorer gave no answer in time"),
    "memory": (ErrorCause.MEMORY, "the scorer used more memory than it may"),
    "output": (ErrorCause.EXCEPTION, "the scorer wrote more than a verdict"),
}


class ReasoningGymReward:
    """The task's score of the answer, 0 … 1; 1 is correct. Needs the columns of a `reasoning_gym` source."""

    def __init__(self, settings: ReasoningGymComponent, *, num_parallel: int) -> None:
        """Nothing starts before the first answer (or `start`)."""
        limits = settings.limits
        self._limits = Limits(
            cpu_s=limits.cpu_s or limits.deadline_s,
            wall_s=limits.deadline_s,
            memory_bytes=limits.memory_bytes,
            num_processes=1,  # a scorer starts none
            file_bytes=MIB,
        )
        self._sandbox = Sandbox(
            SandboxConfig(
                backend=settings.backend,
                python=settings.python,
                num_workers=num_parallel,
                tmp_bytes=MIB,
                preload=("rayzero.rewards.sandbox.inside.task_scores:warm",),
                preload_packages=("reasoning-gym",),
            )
        )

    async def start(self) -> None:
        """Start the sandbox and import the package there. Raises ActorStartError when it cannot do its work."""
        try:
            await self._sandbox.start()
        except SandboxRefusedError as error:
            raise ActorStartError(f"reasoning_gym: {error}") from None

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case; equal completions of one question are judged once."""
        return await score_distinct(cases, _key, self._judge, context.deadline)

    async def close(self) -> None:
        """End the sandbox."""
        await self._sandbox.close()

    async def _judge(self, case: Case) -> Score:
        columns = case.prompt.columns
        task, entry = columns.get(TASK_COLUMN), columns.get(ENTRY_COLUMN)
        if not (isinstance(task, str) and isinstance(entry, str)):
            return failed(
                ErrorCause.BAD_PROMPT, f"{case.prompt.prompt_id} has no {TASK_COLUMN}: it is from another source"
            )
        found = extract(case.text, prefilled=case.prefilled)
        if found.answer is None:
            return scored(0.0, reason=found.problem or "no answer")
        answer = found.answer.strip()
        if len(answer) > MAX_ANSWER_CHARS:
            return scored(0.0, reason=f"an answer of more than {MAX_ANSWER_CHARS} characters")
        job = {"mode": "score", "task": task, "entry": entry, "answer": answer}
        try:
            outcome = await self._sandbox.python(job, self._limits)
            if outcome.is_infrastructure:
                outcome = await self._sandbox.python(job, self._limits)
        except SandboxRefusedError as error:
            return failed(ErrorCause.SANDBOX, str(error))
        return _score(outcome, task)


def _score(outcome: Outcome, task: str) -> Score:
    """What the box says, if it ended well and said one thing."""
    seconds = outcome.wall_s
    if outcome.is_infrastructure:
        return failed(ErrorCause.SANDBOX, outcome.detail or outcome.ended, seconds=seconds)
    if outcome.ended in _ENDINGS:
        return failed(*_ENDINGS[outcome.ended], seconds=seconds)
    if outcome.code == TRIPPED:
        return failed(ErrorCause.SANDBOX, f"{task}: the answer got as far as running code: ended", seconds=seconds)
    reply = wire.only_frame(outcome.result)
    reply = reply if isinstance(reply, dict) else {}
    if outcome.code == 0 and isinstance(reply.get("refused"), str):
        return scored(0.0, reason=f"{task} does not evaluate it: {reply['refused']}", seconds=seconds)
    value = reply.get("score")
    if outcome.code != 0 or type(value) is not float or not math.isfinite(value):
        told = reply.get("error") or f"the scorer of {task} ended with status {outcome.code} and no score"
        return failed(ErrorCause.EXCEPTION, str(told), seconds=seconds)
    raised = f" (it raised {reply['raised']})" if reply.get("raised") else ""
    return scored(value, reason=f"{task} gives it {value:g}{raised}", seconds=seconds)


def _key(case: Case) -> tuple[str, bool, Any]:
    columns = case.prompt.columns
    return case.text, case.prefilled, json.dumps([columns.get(TASK_COLUMN), columns.get(ENTRY_COLUMN)], default=str)
