"""Requests for chat completions: what their messages say, and which field is at fault."""

from __future__ import annotations

from typing import Any

import pytest

from rayzero.rollout_workers.episodes.chat_request import read_chat
from rayzero.rollout_workers.episodes.wire import FixedSampling, Refusal
from rayzero.services.schema.episodes import ToolCall
from rayzero.services.schema.messages import ChatMessage

SAMPLING = FixedSampling(temperature=0.8)


def message(**given: Any) -> ChatMessage:
    return read_chat({"messages": [given]}, SAMPLING).messages[0]


def test_messages_are_read_in_all_their_forms() -> None:
    assert message(role="developer", content="Be brief.").role == "system"
    assert message(role="user", content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]).content == "ab"
    said = message(
        role="assistant",
        content=None,
        reasoning_content="hm",
        tool_calls=[{"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}],
        refusal=None,
        annotations=[],
    )
    call = ToolCall(name="look", arguments={"at": 1}, call_id="c")
    assert said == ChatMessage(role="assistant", content="", reasoning="hm", tool_calls=(call,))
    assert message(role="tool", tool_call_id="c", content="1") == ChatMessage(
        role="tool", content="1", tool_call_id="c"
    )


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content"),
        ({"role": "function", "content": ""}, "messages[0].role"),
        ({"role": "assistant", "function_call": {}}, "messages[0].function_call"),
        ({"role": "assistant", "tool_calls": {}}, "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "messages[0].tool_calls[0]"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "[1]"}}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_a_message_that_cannot_be_read_is_named(given: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as refused:
        message(**given)
    assert (refused.value.field, refused.value.status) == (field, 400)


def test_sampling_may_be_repeated_and_limits_lowered() -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "temperature": 0.8, "max_tokens": 9}
    assert read_chat({**body, "max_completion_tokens": 5}, SAMPLING).max_tokens == 5
    with pytest.raises(Refusal, match=r"temperature is the recipe's to choose.* or say 0\.8"):
        read_chat({**body, "temperature": 1}, SAMPLING)
    with pytest.raises(Refusal, match="top_p"):
        read_chat({**body, "top_p": True}, SAMPLING)
