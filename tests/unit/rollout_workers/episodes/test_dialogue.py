"""Which messages say the same."""

from __future__ import annotations

import pytest

from rayzero.rollout_workers.episodes.dialogue import equal, says_the_same
from rayzero.services.schema.episodes import ToolCall
from rayzero.services.schema.messages import ChatMessage

CALL = ToolCall(name="look", arguments={"a": 1, "b": [2]}, call_id="c")
KNOWN = ChatMessage(role="assistant", content="x", reasoning="hm", tool_calls=(CALL,))


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (KNOWN, True),
        (ChatMessage(role="assistant", content="x", tool_calls=(CALL,)), True),
        (ChatMessage(role="assistant", content="x", reasoning="other", tool_calls=(CALL,)), False),
        (ChatMessage(role="assistant", content="x"), False),
        (
            ChatMessage(
                role="assistant", content="x", tool_calls=(ToolCall(name="look", arguments={"b": [2], "a": 1}),)
            ),
            True,
        ),
        (
            ChatMessage(
                role="assistant",
                content="x",
                tool_calls=(ToolCall(name="look", arguments={"a": 1, "b": [2]}, call_id="other"),),
            ),
            False,
        ),
    ],
)
def test_arguments_are_compared_as_json_and_what_is_left_out_is_not_missed(given: ChatMessage, same: bool) -> None:
    assert says_the_same(KNOWN, given) is same


def test_runs_of_messages_are_equal_one_by_one() -> None:
    user = ChatMessage(role="user", content="a")
    assert equal((user, KNOWN), (user, KNOWN))
    assert not equal((user, KNOWN), (user,))
