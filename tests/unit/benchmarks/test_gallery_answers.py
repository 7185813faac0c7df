"""Prompts and answers of a recipe's page, from the rollouts beside it."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.gallery_answers import MAX_LINES, answers


def group(version: int, prompt: str, *rollouts: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": prompt}]
    return {
        "key": f"evaluation_{version:06}:-1",
        "prompt_id": f"held_out/{prompt}",
        "messages": messages,
        "rollouts": rollouts,
    }


def rollout(*tokens: str, right: bool = False) -> dict[str, Any]:
    return {"status": "correct" if right else "wrong", "tokens": tokens}


def text(*parts: list[dict[str, Any]]) -> str:
    html = "".join(f'<script type="application/json" data-part="groups">{json.dumps(part)}</script>' for part in parts)
    return "\n".join(answers(html))


def test_each_prompt_stands_above_its_first_answers_before_and_after() -> None:
    before = [group(0, "b", rollout("no")), group(0, "a", rollout("1", "2"), rollout("3", right=True))]
    after = [group(24, "b", rollout("yes", right=True)), group(24, "a", rollout("3", right=True), rollout("4"))]
    assert text(before, after) == (
        "Prompt 1:\n\n    a\n\n    — before, 1 of 2 right, the first:\n    12\n\n"
        "    — after, 1 of 2 right, the first:\n    3\n\n"
        "Prompt 2:\n\n    b\n\n    — before, not right:\n    no\n\n    — after, right:\n    yes\n"
    )


def test_programs_stay_in_their_block_and_long_texts_are_cut() -> None:
    program = rollout("```python\n", "    x = 1\n" * 20, "```")
    shown = text([group(0, "a", program), group(8, "a", {"status": "wrong", "completion": "\x1b[2J" + "y" * 300})])
    assert "\n    ```python\n        x = 1\n" in shown and shown.count("x = 1") == MAX_LINES - 1
    assert "\n    …\n" in shown and "\n```" not in shown
    assert "\\x1b[2J" in shown and max(map(len, shown.splitlines())) == 114
    assert text() == "", "a page without rollouts"
