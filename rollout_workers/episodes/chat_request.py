"""A request for a chat completion, as OpenAI's clients send it: read, and held against what may not be changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rayzero.rollout_workers.episodes.wire import FixedSampling, Refusal, read_count
from rayzero.services.schema.episodes import ToolCall
from rayzero.services.schema.messages import ChatMessage

_IGNORED = frozenset({
    "model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "request_id",
    "prompt_cache_retention", "priority", "skip_special_tokens", "spaces_between_special_tokens",
    "include_stop_str_in_output", "return_token_ids", "cache_salt",
})  # fmt: skip
"""Fields that change nothing of what is sampled, for this engine."""
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "tool_choice": ("auto",),
    "parallel_tool_calls": (True,),
    "response_format": ({"type": "text"},),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "functions": ([],),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "echo": (False,),
}
"""Fields that would change what the model sees or may say, each with the values that do not."""
_ROLES: Mapping[str, Literal["system", "user", "assistant", "tool"]] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """What a session needs to know of it."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[Mapping[str, Any], ...]
    max_tokens: int | None
    model: str
    wants_stream: bool
    wants_usage: bool
    """At the end of a stream."""
    wants_logprobs: bool


def read_chat(body: Mapping[str, Any], sampling: FixedSampling) -> ChatRequest:
    """A request's body.

    Raises:
        Refusal: 400; names the field that is wrong, or that would change what is sampled.
    """
    counts = [read_count(body.get(name), name) for name in ("max_tokens", "max_completion_tokens")]
    given = [count for count in counts if count is not None]
    own = {"messages", "tools", "max_tokens", "max_completion_tokens", "stream", "stream_options", "logprobs"}
    for name, value in body.items():
        if name in own or name in _IGNORED or sampling.check(name, value, name):
            continue
        if value is not None and value not in _ONLY.get(name, ()):
            raise Refusal(
                400, f"{name} would change what the model sees or says, and is not supported: leave it out", field=name
            )
    options = body.get("stream_options") or {}
    return ChatRequest(
        messages=_messages(body.get("messages")),
        tools=_tools(body.get("tools")),
        max_tokens=min(given, default=None),
        model=str(body.get("model") or ""),
        wants_stream=_flag(body, "stream"),
        wants_usage=isinstance(options, Mapping) and bool(options.get("include_usage")),
        wants_logprobs=_flag(body, "logprobs"),
    )


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal(400, f"{name} must be true or false", field=name)
    return bool(value)


def _messages(given: Any) -> tuple[ChatMessage, ...]:
    if not isinstance(given, list) or not given:
        raise Refusal(400, "messages must be a list of at least one message", field="messages")
    return tuple(_message(each, f"messages[{index}]") for index, each in enumerate(given))


def _message(given: Any, where: str) -> ChatMessage:
    if not isinstance(given, Mapping):
        raise Refusal(400, f"{where} must be an object", field=where)
    role = given.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise Refusal(400, f"{where}.role must be one of {', '.join(_ROLES)}", field=f"{where}.role")
    if given.get("function_call") is not None:
        raise Refusal(400, f"{where}.function_call is not supported: use tool_calls", field=f"{where}.function_call")
    calls = given.get("tool_calls")
    calls = [] if calls is None else calls
    if not isinstance(calls, list):
        raise Refusal(400, f"{where}.tool_calls must be a list", field=f"{where}.tool_calls")
    reasoning = given.get("reasoning_content") or given.get("reasoning") or ""
    call_id = given.get("tool_call_id") or ""
    return ChatMessage(
        role=_ROLES[role],
        content=_text(given.get("content"), f"{where}.content"),
        reasoning=reasoning if isinstance(reasoning, str) else "",
        tool_calls=tuple(_call(each, f"{where}.tool_calls[{index}]") for index, each in enumerate(calls)),
        tool_call_id=call_id if isinstance(call_id, str) else "",
    )


def _text(given: Any, where: str) -> str:
    """A text, nothing, or parts that are texts."""
    if given is None:
        return ""
    if isinstance(given, str):
        return given
    parts = given if isinstance(given, list) else [given]
    texts = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") == "text"]
    if len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise Refusal(400, f"{where} must be text, or parts of type text", field=where)
    return "".join(str(text) for text in texts)


def _call(given: Any, where: str) -> ToolCall:
    function = given.get("function") if isinstance(given, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Refusal(400, f"{where} must be a function's call with its name", field=where)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            arguments = []
    if arguments is not None and not isinstance(arguments, Mapping):
        field = f"{where}.function.arguments"
        raise Refusal(400, f"{field} must be a JSON object, as text", field=field)
    call_id = given.get("id")
    return ToolCall(
        name=str(function["name"]),
        arguments=dict(arguments or {}),
        call_id=call_id if isinstance(call_id, str) else "",
    )


def _tools(given: Any) -> tuple[Mapping[str, Any], ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise Refusal(400, "tools must be a list", field="tools")
    for index, tool in enumerate(given):
        function = tool.get("function") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            field = f"tools[{index}]"
            raise Refusal(400, f"{field} must be of type function, with a name", field=field)
    return tuple(given)
