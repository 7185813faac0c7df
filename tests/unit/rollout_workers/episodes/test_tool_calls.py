"""What is read out of a turn, and that nothing a model writes raises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayzero.rollout_workers.episodes.tool_calls import CallNumbers, HermesParser, SampledText, made_call, parser_of
from rayzero.services.schema.messages import ChatMessage
from tests.episode_models import pair_tokenizer

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "thinking": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"\s*<\|im_end\|>", "content": "text"},
    },
}


def parsed(text: str, parser: Any = None) -> ChatMessage:
    turn = SampledText(text=text, raw=text, opening="<|im_start|>assistant\n")
    message: ChatMessage = (parser or HermesParser(CallNumbers())).parse(turn)
    return message


def test_calls_are_numbered_and_taken_out_of_the_content() -> None:
    call = '<tool_call>\n{"name": "look", "arguments": {"at": [1, "a"]}}\n</tool_call>'
    message = parsed(f"I look.\n{call}\n{call}")
    assert message.content == "I look."
    assert [(each.name, each.arguments, each.call_id) for each in message.tool_calls] == [
        ("look", {"at": [1, "a"]}, "call00000"),
        ("look", {"at": [1, "a"]}, "call00001"),
    ]


def test_missing_arguments_are_none_and_text_that_holds_json_is_read() -> None:
    assert made_call('{"name": "look"}', "c").arguments == {}
    assert made_call('{"name": "look", "arguments": ""}', "c").arguments == {}
    assert made_call('{"name": "look", "arguments": "{\\"a\\": 1}"}', "c").arguments == {"a": 1}
    assert made_call('{"function": {"name": "look", "parameters": {"a": 1}}}', "c").arguments == {"a": 1}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{'name': look}", "no JSON"),
        ("", "no JSON"),
        ('"look"', "no JSON object"),
        ('{"arguments": {}}', "names no tool"),
        ('{"name": 3}', "names no tool"),
        ('{"name": "look", "arguments": [1]}', "no JSON object"),
        ('{"name": "look", "arguments": "{"}', "no JSON"),
        ('{"name": "look", "arguments": {"a": NaN}}', "NaN"),
        ('{"name": "look", "arguments": {"a": "\\ud83d"}}', "surrogates not allowed"),
        ('{"name": "look", "arguments": {"a": ' + "[" * 80 + "]" * 80 + "}}", "deeper than 64"),
        ("[" * 100_000, "no JSON"),
        ('{"name": "look", "arguments": {"a": ' + "9" * 10_000 + "}}", "no JSON"),
    ],
)
def test_a_malformed_call_says_what_is_wrong_and_stays_in_the_content(text: str, error: str) -> None:
    written = f"<tool_call>{text}</tool_call>"
    message = parsed(written)
    (call,) = message.tool_calls
    assert error in call.error
    assert message.content == written


def test_a_call_that_is_not_closed_counts_if_it_is_whole() -> None:
    assert parsed('<tool_call>{"name": "look"}').tool_calls[0].error == ""
    assert "no JSON" in parsed('<tool_call>{"name": "lo').tool_calls[0].error


def test_a_thought_is_kept_apart_and_calls_in_it_are_none() -> None:
    message = parsed('<think>or <tool_call>{"name": "look"}</tool_call>?</think>\n\nNo.')
    assert (message.reasoning, message.content) == ('or <tool_call>{"name": "look"}</tool_call>?', "No.")
    assert not message.tool_calls
    assert parsed("so</think>No.").reasoning == "so", "the template opened it"


def test_text_is_left_alone() -> None:
    text = '<think>a</think><tool_call>{"name": "look"}</tool_call>'
    parser = parser_of("text", pair_tokenizer(), (TOOL,), CallNumbers())
    assert parsed(text, parser) == ChatMessage(role="assistant", content=text)
    assert parsed(text, parser_of("auto", pair_tokenizer(), (), CallNumbers())).content == text, (
        "an episode without tools"
    )


def test_the_tokenizers_own_response_template_comes_first() -> None:
    tokenizer = pair_tokenizer()
    tokenizer.response_template = RESPONSE_TEMPLATE
    parser = parser_of("auto", tokenizer, (TOOL,), CallNumbers())
    message = parsed(
        '<think>hm</think>Look.\n<tool_call>\n{"name": "look", "arguments": {"a": 1}}\n</tool_call>', parser
    )
    assert (message.reasoning, message.content) == ("hm", "Look.")
    assert [(call.name, call.arguments) for call in message.tool_calls] == [("look", {"a": 1})]
    broken = parsed("<tool_call>{'name'}</tool_call>", parser)
    assert broken.tool_calls[0].error and broken.content == "<tool_call>{'name'}</tool_call>"


@given(st.text(alphabet='<tool_cal>/{}"name:argumets[]\\ud8 \n1', max_size=200))
@settings(max_examples=300, deadline=None)
def test_nothing_that_is_written_raises(text: str) -> None:
    message = parsed(text)
    assert all(call.error or call.name for call in message.tool_calls)
