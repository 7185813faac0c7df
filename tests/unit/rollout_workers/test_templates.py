"""Prompts as text and tokens."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from rayzero.rollout_workers.templates import R1_ZERO, render
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.errors import PromptRefused, RecipeError
from rayzero.services.schema.messages import ChatMessage, Prompt
from tests.models import character_tokenizer


def by(template: Any, **arguments: Any) -> RolloutSettings:
    """A recipe's say."""
    return RolloutSettings(prompt_template=template, chat_template_arguments=arguments)


def prompt(*turns: tuple[Literal["system", "user", "assistant"], str]) -> Prompt:
    messages = tuple(ChatMessage(role=role, content=content) for role, content in turns)
    return Prompt(prompt_id="p", messages=messages, answer=None)


def test_chat_uses_the_models_own_template_and_ends_where_the_assistant_begins() -> None:
    tokenizer = character_tokenizer()
    text, token_ids = render(prompt(("system", "Be brief."), ("user", "1 + 1?")), by("chat"), tokenizer)
    assert text == "<|start|>system\nBe brief.<|end|>\n<|start|>user\n1 + 1?<|end|>\n<|start|>assistant\n"
    assert token_ids.dtype.name == "int32"
    assert tokenizer.decode(token_ids) == text


def test_r1_zero_is_the_papers_template_word_for_word() -> None:
    text, _ = render(prompt(("user", "What is 2 + 2?")), by("r1_zero"), character_tokenizer())
    assert text == (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
        "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
        "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
        "User: What is 2 + 2?. Assistant:"
    )


def test_r1_zero_leaves_braces_in_a_question_alone() -> None:
    text, _ = render(prompt(("user", "Put it in \\boxed{} or {prompt}")), by("r1_zero"), character_tokenizer())
    assert text == R1_ZERO.replace("{prompt}", "Put it in \\boxed{} or {prompt}")


def test_text_is_the_messages_text_alone() -> None:
    text, token_ids = render(
        prompt(
            ("user", "57+68="),
        ),
        by("text"),
        character_tokenizer(),
    )
    assert text == "57+68="
    assert len(token_ids) == 6


def test_chat_without_a_chat_template_names_the_setting_and_the_fix() -> None:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(RecipeError, match=r"rollout.prompt_template is chat.*r1_zero or text"):
        render(prompt(("user", "hello")), by("chat"), tokenizer)


@pytest.mark.parametrize("template", ["r1_zero", "text"])
def test_a_template_without_a_place_for_a_system_message_refuses_it(template: str) -> None:
    with pytest.raises(
        PromptRefused, match=rf"prompt_template {template} has no place for a system message: say it with"
    ):
        render(prompt(("system", "Answer in French."), ("user", "2+2?")), by(template), character_tokenizer())


def test_r1_zero_refuses_a_conversation() -> None:
    with pytest.raises(RecipeError, match="the prompt has 2"):
        render(prompt(("user", "a"), ("assistant", "b"), ("user", "c")), by("r1_zero"), character_tokenizer())


def test_a_prompt_that_the_models_template_refuses_is_the_prompts_fault() -> None:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    )
    with pytest.raises(PromptRefused, match=r"prompt p \(roles: system, user\): .* refuses it: no system role"):
        render(prompt(("system", "Be brief."), ("user", "1 + 1?")), by("chat"), tokenizer)
    with pytest.raises(PromptRefused, match=r"prompt p: rollout.prompt_template r1_zero renders one question"):
        render(prompt(("user", "1"), ("assistant", "2"), ("user", "3")), by("r1_zero"), tokenizer)
    with pytest.raises(PromptRefused, match=r"prompt p \(roles: user\): the tokenizer refuses it"):
        render(prompt(("user", "half an emoji: \ud83d")), by("text"), tokenizer)


def test_a_chat_template_gets_the_recipes_arguments() -> None:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}{% if enable_thinking is false %}=0{% endif %}"
    assert render(prompt(("user", "1+1")), by("chat"), tokenizer)[0] == "1+1"
    assert render(prompt(("user", "1+1")), by("chat", enable_thinking=False), tokenizer)[0] == "1+1=0"


@pytest.mark.parametrize(
    ("template", "arguments", "problem"),
    [
        ("chat", {"add_generation_prompt": False}, "rayzero gives add_generation_prompt itself"),
        ("text", {"enable_thinking": False}, "are for prompt_template chat, not text"),
    ],
)
def test_arguments_that_are_not_a_recipes_to_give_are_refused(
    template: str, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        by(template, **arguments)
