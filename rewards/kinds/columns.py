"""A group of cases as keyword lists: what custom rewards and reward servers are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rayzero.rewards.base import Case

Message = dict[str, str]


def columns_of(cases: Sequence[Case], *, conversational: bool = False) -> dict[str, list[Any]]:
    """`prompts`, `completions`, `completion_ids`, `answer`, `source`, `prompt_id`, `finish_reason` and the data row's
    own columns, each a list with one entry a completion, as in TRL.

    Prompts are the text as rendered for the model, or, `conversational`, lists of messages; so are completions.
    """
    own = {name for case in cases for name in case.prompt.columns}
    columns: dict[str, list[Any]] = {name: [case.prompt.columns.get(name) for case in cases] for name in sorted(own)}
    columns |= {
        "answer": [case.prompt.answer for case in cases],
        "source": [case.prompt.source for case in cases],
        "prompt_id": [case.prompt.prompt_id for case in cases],
        "finish_reason": [case.finish_reason for case in cases],
        "completion_ids": [[int(token) for token in case.token_ids] for case in cases],
        "prompts": [_messages(case) if conversational else _text(case) for case in cases],
        "completions": [
            [{"role": "assistant", "content": case.text}] if conversational else case.text for case in cases
        ],
    }
    return columns


def _messages(case: Case) -> list[Message]:
    return [{"role": message.role, "content": message.content} for message in case.prompt.messages]


def _text(case: Case) -> str:
    return case.prompt_text or "\n\n".join(message.content for message in case.prompt.messages)
