"""Prompt -> the text and the tokens that an engine completes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, Protocol

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

    def __hash__(self) -> int:
        """What is found out about a template is kept for its tokenizer."""
        ...

    def apply_chat_template(
        self, conversation: Any, *, tools: Any = None, tokenize: bool, add_generation_prompt: bool
    ) -> Any:
        """Render a conversation with the model's own template."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> Any:
        """Text to token ids."""
        ...


Tools = Sequence[Mapping[str, Any]]
"""JSON schemas of tools, as chat templates want them."""


class TemplateArguments:
    """A tokenizer whose chat template is always given further arguments (`rollout.chat_template_arguments`)."""

    def __init__(self, tokenizer: Any, arguments: Mapping[str, Any]) -> None:
        """`arguments`: by the names that the template knows."""
        self._tokenizer, self._arguments = tokenizer, dict(arguments)

    def __getattr__(self, name: str) -> Any:
        """All else is the tokenizer's own."""
        return getattr(self._tokenizer, name)

    def __eq__(self, other: object) -> bool:
        """What is found out about a template is kept for both together."""
        mine = (self._tokenizer, self._arguments)
        return isinstance(other, TemplateArguments) and mine == (other._tokenizer, other._arguments)

    def __hash__(self) -> int:
        """See `__eq__`."""
        return hash((self._tokenizer, json.dumps(self._arguments, sort_keys=True, default=str)))

    def apply_chat_template(self, conversation: Any, **given: Any) -> Any:
        """Render a conversation with the model's own template."""
        return self._tokenizer.apply_chat_template(conversation, **self._arguments, **given)


def with_arguments(tokenizer: Any, settings: RolloutSettings) -> Any:
    """The tokenizer as a recipe has it render conversations."""
    arguments = settings.chat_template_arguments
    return TemplateArguments(tokenizer, arguments) if arguments else tokenizer


def render(
    prompt: Prompt, settings: RolloutSettings, tokenizer: ChatTokenizer, tools: Tools = ()
) -> tuple[str, NDArray[np.int32]]:
    """The prompt as text, and as the [P] tokens that the learner will train on; by `prompt_template` of the settings.

    Raises:
        PromptRefused: the template cannot render these messages, or the tokenizer the text.
        RecipeError: the template can render nothing with this model.
    """
    template = settings.prompt_template
    try:
        text = TEMPLATES[template](prompt.messages, with_arguments(tokenizer, settings), tools)
        return text, encode(text, template, tokenizer)
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


def encode(text: str, template: str, tokenizer: ChatTokenizer) -> NDArray[np.int32]:
    """Tokens of a conversation's text from its first character on."""
    # A chat template writes the special tokens itself: adding them again would start the prompt with two.
    return np.asarray(tokenizer.encode(text, add_special_tokens=template != "chat"), dtype=np.int32)


def encode_rest(text: str, tokenizer: ChatTokenizer) -> NDArray[np.int32]:
    """Tokens of a text that follows others."""
    return np.asarray(tokenizer.encode(text, add_special_tokens=False), dtype=np.int32)


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


def chat_text(
    messages: Sequence[ChatMessage], tokenizer: ChatTokenizer, tools: Tools = (), *, asks: bool = True
) -> str:
    """A conversation in the model's own template; `asks`: up to where the assistant begins its next turn.

    Raises:
        RecipeError: the model has no template.
        Exception: a template raises what it likes where it refuses messages.
    """
    if not tokenizer.chat_template:
        raise RecipeError(
            "rollout.prompt_template is chat, but the model has no chat template; for a base model use r1_zero or text"
        )
    messages = _as_the_template_knows(messages, tokenizer)
    named = {call.call_id: call.name for message in messages for call in message.tool_calls}
    turns = [_turn(message, named.get(message.tool_call_id, "")) for message in messages]
    more = {"tools": list(tools)} if tools else {}
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asks, **more))


def renders_tools(tokenizer: ChatTokenizer) -> bool:
    """Whether the model's template shows the model which tools there are."""
    tool = {"type": "function", "function": {"name": _PROBE, "description": _PROBE, "parameters": _NO_PARAMETERS}}
    try:
        return _PROBE in chat_text((ChatMessage(role="user", content="?"),), tokenizer, (tool,))
    except Exception:
        return False


def renders_tool_calls(tokenizer: ChatTokenizer) -> bool:
    """Whether the model's template shows the calls of earlier turns; where it does not, they stand in the content."""
    return _shows(tokenizer, str(tokenizer.chat_template), "calls")


def renders_tool_answers(tokenizer: ChatTokenizer) -> bool:
    """Whether the model's template shows what tools answered; where it does not, a user says it."""
    return _shows(tokenizer, str(tokenizer.chat_template), "answers")


def _as_the_template_knows(messages: Sequence[ChatMessage], tokenizer: ChatTokenizer) -> Sequence[ChatMessage]:
    """Nothing may get lost: a template leaves out what it has no words for."""
    template = str(tokenizer.chat_template)
    called = {call.call_id for message in messages for call in message.tool_calls if not call.error}
    if any(message.tool_calls for message in messages) and not _shows(tokenizer, template, "calls"):
        messages = [_with_calls_in_words(message) for message in messages]
    if all(message.role != "tool" for message in messages):
        return messages
    known: list[ChatMessage] = []
    for message in messages:
        what = "answers" if message.tool_call_id in called else "stray answers"
        if message.role != "tool" or _shows(tokenizer, template, what):
            known.append(message)
        elif known and known[-1].role == "user":  # some take turns strictly
            known[-1] = replace(known[-1], content=f"{known[-1].content}\n\n{message.content}")
        else:
            known.append(ChatMessage(role="user", content=message.content))
    return known


@lru_cache(maxsize=64)
def _shows(tokenizer: ChatTokenizer, template: str, what: Literal["calls", "answers", "stray answers"]) -> bool:
    """Found out by trying. `template`: the tokenizer's, which may change."""
    name = _PROBE if what == "calls" else "look"
    call = {"type": "function", "id": "call00000", "function": {"name": name, "arguments": {}}}
    says_call = what == "calls" or (what == "answers" and _shows(tokenizer, template, "calls"))
    answer = "found" if what == "calls" else _PROBE
    turns = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call]} if says_call else _SAID,
        {"role": "tool", "content": answer, "tool_call_id": "call00000", "name": name},
    ]
    try:
        return _PROBE in str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception:
        return False


_PROBE = "probe_of_rayzero"
_SAID = {"role": "assistant", "content": "look"}
_NO_PARAMETERS = {"type": "object", "properties": {}}


def _turn(message: ChatMessage, tool: str) -> dict[str, Any]:
    """As transformers' templates know it; `tool`: whose answer it is."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        turn |= {"reasoning_content": message.reasoning, "thinking": message.reasoning}  # templates differ in the name
    if calls := [call for call in message.tool_calls if not call.error]:  # a malformed one stands in the content
        turn["tool_calls"] = [
            {
                "type": "function",
                "id": call.call_id,
                "function": {"name": call.name, "arguments": dict(call.arguments)},
            }
            for call in calls
        ]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    if message.role == "tool" and tool:
        turn["name"] = tool
    return turn


def _with_calls_in_words(message: ChatMessage) -> ChatMessage:
    """For a template that would leave the calls out: as Qwen's and Hermes' models write them."""
    calls = [call for call in message.tool_calls if not call.error]
    said = [json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False) for call in calls]
    parts = [message.content] if message.content else []
    content = "\n".join([*parts, *(f"<tool_call>\n{call}\n</tool_call>" for call in said)])
    return replace(message, content=content, tool_calls=())


def _r1_zero(messages: Sequence[ChatMessage], tokenizer: ChatTokenizer, tools: Tools) -> str:
    _has_no_system(messages, "r1_zero")
    users = [message.content for message in messages if message.role == "user"]
    if len(users) != 1:
        raise PromptRefused(f"rollout.prompt_template r1_zero renders one question, but the prompt has {len(users)}")
    return R1_ZERO.replace("{prompt}", users[0])


def _text(messages: Sequence[ChatMessage], tokenizer: ChatTokenizer, tools: Tools) -> str:
    _has_no_system(messages, "text")
    return "".join(message.content for message in messages)


def _has_no_system(messages: Sequence[ChatMessage], template: str) -> None:
    """Left out, or run into the question, a system message would ask for something else than it says."""
    if any(message.role == "system" for message in messages):
        raise PromptRefused(
            f"rollout.prompt_template {template} has no place for a system message: say it with the question (the "
            'source\'s `instructions: "Answer in French. {prompt}"`) and leave system_prompt out, or take chat'
        )


TEMPLATES: Mapping[str, Callable[[Sequence[ChatMessage], ChatTokenizer, Tools], str]] = {
    "chat": chat_text,
    "r1_zero": _r1_zero,
    "text": _text,
}
"""By the name in the recipe (`rollout.prompt_template`)."""
