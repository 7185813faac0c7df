from __future__ import annotations

from typing import Any

import pytest

from rayzero.services.data.formats.problem import RowFault
from rayzero.services.data.sources.conversations import conversation


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([{"role": "user", "content": "Hi"}], [("user", "Hi")]),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}], [("user", "a\nb")]),
        ([{"role": "user", "content": ["a"]}], [("user", "a")]),
        (
            [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"},
             {"from": "human", "value": "Q2"}],
            [("system", "S"), ("user", "Q"), ("assistant", "A"), ("user", "Q2")],
        ),
        ([{"role": None, "content": None, "from": "human", "value": "Q"}], [("user", "Q")]),
    ],
)  # fmt: skip
def test_what_is_clear_is_read(turns: list[Any], expected: list[tuple[str, str]]) -> None:
    assert [(message.role, message.content) for message in conversation("messages", turns)] == expected


@pytest.mark.parametrize(
    ("turns", "kind", "problem"),
    [
        ("text", "wrong type", "must be text or a list"),
        ([], "wrong type", "must be text or a list"),
        (["Hi"], "wrong type", "message 0 must be {role, content}, not text"),
        ([{"role": "user", "content": None}], "wrong type", "with text as content, not null"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "unsupported", "type 'image_url'"),
        ([{"role": "user", "content": [7]}], "unsupported", "a number"),
        (
            [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
            "wrong role",
            "last message must be the user",
        ),
        ([{"from": "tool", "value": "Q"}], "wrong role", "'tool'"),
    ],
)
def test_what_is_not_is_refused(turns: Any, kind: str, problem: str) -> None:
    with pytest.raises(RowFault, match=problem) as caught:
        conversation("messages", turns)
    assert caught.value.kind == kind
