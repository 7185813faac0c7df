"""What new messages add, in templates of the kinds that models have; nothing that is new may get lost."""

from __future__ import annotations

import pytest

from rayzero.rollout_workers.episodes.suffix import suffix_text, why_no_suffix
from rayzero.rollout_workers.templates import ChatTokenizer, renders_tool_answers, renders_tool_calls, renders_tools
from rayzero.services.schema.episodes import ToolCall
from rayzero.services.schema.messages import ChatMessage
from tests.episode_models import CHATML, pair_tokenizer

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CALL = ToolCall(name="look", arguments={"at": "abc"}, call_id="call00007")
SAID = ChatMessage(role="assistant", content="hello", reasoning="hm")
CALLED = ChatMessage(role="assistant", content="", tool_calls=(CALL,))
ANSWER = ChatMessage(role="tool", content="it is 12", tool_call_id="call00007")
USER = ChatMessage(role="user", content="and?")

ALTERNATING = (
    "{% for message in messages %}{% if message.role not in ['user', 'assistant'] or (message.role == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<turn>{{ message.role }}\n{{ message.content | trim }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
"""As Gemma's: two roles, strictly by turns, and no word for tools."""
ENDS_OTHERWISE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<eos>{% endif %}"
)
"""As Phi's: what is not continued ends with another token."""
ANSWERS_WITHIN = (
    "{% for message in messages %}{% if message.role != 'tool' %}<turn>{{ message.role }}\n"
    "{% for call in message.tool_calls or [] %}<call>{{ call.function.name }}{{ call.function.arguments | tojson }}"
    "<called>{% endfor %}"
    "{% if message.tool_calls %}{% for other in messages[loop.index:] %}{% if other.role == 'tool' %}"
    "<answer>{{ other.content }}<answered>{% endif %}{% endfor %}{% endif %}"
    "{{ message.content }}{% if not message.tool_calls %}<end>\n{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt and messages[-1].role != 'tool' %}<turn>assistant\n{% endif %}"
)
"""As Gemma 4's: a tool's answer is part of the turn that called, before its content, and vanishes without a call."""
CHANGES = (
    "{% for message in messages %}<turn>{{ message.role }}{{ message.content }}"
    "{% if loop.last %}!{% endif %}<end>{% endfor %}"
)


def suffix(template: str, last: ChatMessage, *new: ChatMessage, stops: tuple[str, ...] = ("<end>",)) -> str | None:
    return suffix_text(new, last, pair_tokenizer(template), (TOOL,), stops)


def test_what_follows_begins_with_the_boundary_after_the_turns_own_end() -> None:
    stops = ("<|im_end|>",)
    assert suffix(CHATML, SAID, USER, stops=stops) == "\n<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n"
    assert suffix(CHATML, CALLED, ANSWER, stops=stops) == (
        "\n<|im_start|>tool\nit is 12<|im_end|>\n<|im_start|>assistant\n"
    )
    assert suffix(CHATML, SAID, stops=stops) == "\n<|im_start|>assistant\n", "the model speaks once more"


def test_a_turn_that_ended_with_another_token_gets_the_templates_end() -> None:
    assert suffix(CHATML, SAID, USER, stops=("<eos>",)) == (
        "<|im_end|>\n<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_template_without_words_for_tools_hears_of_them_from_the_user() -> None:
    tokenizer = pair_tokenizer(ALTERNATING)
    assert not renders_tools(tokenizer) and not renders_tool_calls(tokenizer) and not renders_tool_answers(tokenizer)
    assert suffix(ALTERNATING, CALLED, ANSWER) == "\n<turn>user\nit is 12<end>\n<turn>assistant\n"
    assert suffix(ALTERNATING, CALLED, ANSWER, ANSWER) == (
        "\n<turn>user\nit is 12\n\nit is 12<end>\n<turn>assistant\n"
    ), "two users in a row it would refuse"


def test_a_template_that_ends_otherwise_when_nothing_follows() -> None:
    assert suffix(ENDS_OTHERWISE, SAID, USER) == "\n<|user|>\nand?<end>\n<|assistant|>\n"


def test_answers_that_stand_within_the_turn_are_not_lost() -> None:
    assert suffix(ANSWERS_WITHIN, CALLED, ANSWER, stops=("<called>", "<end>")) == "<answer>it is 12<answered>"
    assert suffix(ANSWERS_WITHIN, SAID, USER) == "\n<turn>user\nand?<end>\n<turn>assistant\n"
    stray = ChatMessage(role="tool", content="no such tool")
    assert suffix(ANSWERS_WITHIN, SAID, stray) == "\n<turn>user\nno such tool<end>\n<turn>assistant\n"


def test_a_template_that_writes_a_turn_otherwise_once_it_is_followed_has_no_suffix() -> None:
    assert suffix(CHANGES, SAID, USER) is None
    assert "a user's message" in why_no_suffix(pair_tokenizer(CHANGES))


@pytest.mark.parametrize("template", [CHATML, ALTERNATING, ENDS_OTHERWISE, ANSWERS_WITHIN])
def test_templates_that_keep_what_was_said_are_found_fit(template: str) -> None:
    tokenizer: ChatTokenizer = pair_tokenizer(template)
    assert why_no_suffix(tokenizer, tools=(TOOL,)) == ""


def test_a_new_message_may_hold_whatever_the_stand_in_would_be() -> None:
    content = " ".join(f"turn{'x' * length}y" for length in range(1, 30))
    found = suffix(CHATML, SAID, ChatMessage(role="user", content=content), stops=("<|im_end|>",))
    assert found is not None and found.startswith(f"\n<|im_start|>user\n{content}<|im_end|>")


def test_a_thinking_template_keeps_what_was_thought() -> None:
    """Thoughts of earlier turns would be left out of a conversation that is rendered anew."""
    assert suffix(CHATML, SAID, USER, ChatMessage(role="assistant", content="ok"), USER, stops=("<|im_end|>",)) == (
        "\n<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\nok<|im_end|>\n"
        "<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n"
    )
