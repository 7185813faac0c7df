"""Prompt -> the text and the tokens that an engine completes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.errors import PromptRefused, PromptTooLong, RecipeError
from rayzero.services.schema.messages import ChatMessage, Prompt

R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
    "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, "
    "i.e., <think> reasoning process here </think> <answer> answer here </answer>. User: {prompt}. Assistant:"
)
"""Table 1 of DeepSeek-R1 (arXiv 2501.12948), word for word; `{prompt}` is the question."""


class ChatTokenizer(Protocol):
    """What is needed of a Hugging Face tokenizer."""

    chat_template: Any

    def apply_chat_template(
        self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool, **arguments: Any
    ) -> Any:
        """Render a conversation with the model's own template, which reads `arguments`."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> Any:
        """Text to token ids."""
        ...


def render(prompt: Prompt, settings: RolloutSettings, tokenizer: ChatTokenizer) -> tuple[str, NDArray[np.int32]]:
    """The prompt as text, and as the [P] tokens that the learner will train on; by `prompt_template` of the settings.

    Raises:
        PromptRefused: the template cannot render these messages, or the tokenizer the text.
        RecipeError: the template can render nothing with this model.
    """
    template = settings.prompt_template
    try:
        text = TEMPLATES[template](prompt.messages, tokenizer, settings.chat_template_arguments)
        # A chat template writes the special tokens itself: adding them again would start the prompt with two.
        token_ids = tokenizer.encode(text, add_special_tokens=template != "chat")
        return text, np.asarray(token_ids, dtype=np.int32)
    except RecipeError as error:
        raise type(error)(f"prompt {prompt.prompt_id}: {error}") from None
    except Exception as error:
        # A model's template is a program of its own, and raises what it likes: for a system message, say.
        roles = ", ".join(message.role for message in prompt.messages)
        what = "the model's chat template" if template == "chat" else "the tokenizer"
        remedy = (
            "put the system message's text into the question (or leave system_prompt out)"
            if any(message.role == "system" for message in prompt.messages)
            else "change or drop the prompt"
        )
        raise PromptRefused(
            f"prompt {prompt.prompt_id} (roles: {roles}): {what} refuses it: {error}; {remedy}, or choose another "
            "rollout.prompt_template"
        ) from None


def room_after(prompt: Prompt, num_tokens: int, settings: RolloutSettings) -> int:
    """Tokens that are left for a completion after a prompt's.

    Raises:
        PromptTooLong: none.
    """
    room = settings.max_model_tokens - num_tokens
    if room < 1:
        raise PromptTooLong(
            f"prompt {prompt.prompt_id} has {num_tokens} tokens, and rollout.max_model_tokens is "
            f"{settings.max_model_tokens}: raise it, drop the prompt, or set data.max_prompt_tokens"
        )
    return room


def _chat(messages: Sequence[ChatMessage], tokenizer: ChatTokenizer, arguments: Mapping[str, Any]) -> str:
    if not tokenizer.chat_template:
        raise RecipeError(
            "rollout.prompt_template is chat, but the model has no chat template; for a base model use r1_zero or text"
        )
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **arguments))


def _r1_zero(messages: Sequence[ChatMessage], tokenizer: ChatTokenizer, arguments: Mapping[str, Any]) -> str:
    users = [message.content for message in messages if message.role == "user"]
    if len(users) != 1:
        raise PromptRefused(f"rollout.prompt_template r1_zero renders one question, but the prompt has {len(users)}")
    return R1_ZERO.replace("{prompt}", users[0])


def _text(messages: Sequence[ChatMessage], tokenizer: ChatTokenizer, arguments: Mapping[str, Any]) -> str:
    return "".join(message.content for message in messages)


TEMPLATES: Mapping[str, Callable[[Sequence[ChatMessage], ChatTokenizer, Mapping[str, Any]], str]] = {
    "chat": _chat,
    "r1_zero": _r1_zero,
    "text": _text,
}
"""By the name in the recipe (`rollout.prompt_template`)."""
