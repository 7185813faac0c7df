"""Which part of a completion is its answer: one rule for every reward."""

from __future__ import annotations


def answer_part(text: str, *, prefilled: bool = False) -> str | None:
    """What follows the last </think>; all of it where there are no tags; None where the thought never ended.

    `prefilled`: the prompt already ended in <think>, so that without </think> all of the text is thought.
    """
    _, closed, part = text.rpartition("</think>")
    before_reopened, reopened, _ = part.partition("<think>")
    if not closed and (prefilled or (reopened and not before_reopened.strip())):
        return None
    return before_reopened
