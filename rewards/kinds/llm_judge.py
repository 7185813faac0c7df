"""A language model behind an OpenAI-compatible API as the judge.

What a policy writes can try to talk the judge round. The completion stands between markers that it cannot foresee, and
only a grade on the judge's own last line counts; a judge can still be persuaded, so watch its grades against a
verifiable reward.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any

from rayzero.rewards.base import Case, Context, Score, failed, score_distinct, scored
from rayzero.rewards.kinds.json_client import JsonClient, ServerFailure
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.reward_components import JudgeComponent

_GRADE = re.compile(r"^\W*GRADE\W*:\W*?(-?\d+(?:\.\d+)?)\W*(?:/\s*\d+(?:\.\d+)?\W*)?$", re.IGNORECASE)


class JudgeReward:
    """grade / scale, clipped to [0, 1]. A reply without a grade is an error."""

    def __init__(self, settings: JudgeComponent) -> None:
        self.settings = settings
        self.client = JsonClient(
            settings.base_url.rstrip("/") + "/chat/completions",
            deadline_s=settings.deadline_s,
            max_concurrency=settings.max_concurrency,
            token_env=settings.api_key_env,
        )

    async def start(self) -> None:
        """Nothing to start."""

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case; equal completions of a prompt are graded once."""
        return await score_distinct(cases, _key, self._judge, context.deadline)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def _judge(self, case: Case) -> Score:
        payload = {
            "model": self.settings.model,
            "messages": judge_messages(case, self.settings),
            "temperature": 0.0,
            "max_tokens": self.settings.max_tokens,
        }
        try:
            grade = grade_of(await self.client.post(payload))
        except ServerFailure as failure:
            return failed(failure.cause, failure.text)
        value = min(1.0, max(0.0, grade / self.settings.scale))
        return scored(value, full=self.settings.full_score, reason=f"graded {grade:g} of {self.settings.scale:g}")


def judge_messages(case: Case, settings: JudgeComponent) -> list[dict[str, str]]:
    """What the judge is asked."""
    marker = f"ANSWER {secrets.token_hex(8)}"
    question = "\n\n".join(f"[{message.role}]\n{message.content}" for message in case.prompt.messages)
    reference = "" if case.prompt.answer is None else f"Reference answer:\n{case.prompt.answer}\n\n"
    asked = (
        f"Question:\n{question}\n\n{reference}Answer to grade, between the {marker} markers:\n"
        f"<<<{marker}>>>\n{case.text}\n<<<END {marker}>>>\n\n"
        f"Give one sentence of grounds, then, on a last line of its own, `GRADE: n`, n from 0 to {settings.scale:g}."
    )
    return [{"role": "system", "content": settings.instructions}, {"role": "user", "content": asked}]


def grade_of(reply: Any) -> float:
    """The grade on the last non-blank line of a chat completion. Raises ServerFailure when there is none."""
    try:
        text = str(reply["choices"][0]["message"]["content"])
    except (KeyError, IndexError, TypeError):
        raise ServerFailure(ErrorCause.BAD_REPLY, f"not a chat completion: {str(reply)[:200]}") from None
    lines = [line for line in text.splitlines() if line.strip()]
    match = _GRADE.match(lines[-1].strip()[:200]) if lines else None
    if match is None:
        last = lines[-1][:200] if lines else ""
        raise ServerFailure(ErrorCause.BAD_REPLY, f"no `GRADE: n` on the judge's last line: {last!r}")
    return float(match.group(1))


def _key(case: Case) -> tuple[str, str]:
    return case.prompt.prompt_id, case.text
