"""A sampled turn as OpenAI's clients read it: one object, or the events of a stream that is made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rayzero.rollout_workers.episodes.chat_request import ChatRequest
from rayzero.rollout_workers.episodes.session import RecordedTurn
from rayzero.services.schema.episodes import POLICY_MODEL
from rayzero.services.schema.messages import ChatMessage, Completion


def chat_completion(request: ChatRequest, taken: RecordedTurn, reply_id: str, created: int, tokenizer: Any) -> Any:
    """The reply, JSON-like."""
    message = taken.turn.message
    calls = _calls(message)
    said: dict[str, Any] = {"role": "assistant", "content": message.content or (None if calls else ""), "refusal": None}
    if message.reasoning:
        said["reasoning_content"] = message.reasoning
    if calls:
        said["tool_calls"] = calls
    choice = {
        "index": 0,
        "message": said,
        "finish_reason": "tool_calls" if calls and taken.turn.finish_reason == "stop" else taken.turn.finish_reason,
        "logprobs": _logprobs(taken.completion, tokenizer) if request.wants_logprobs else None,
    }
    return {
        "id": reply_id,
        "object": "chat.completion",
        "created": created,
        "model": request.model or POLICY_MODEL,
        "choices": [choice],
        "usage": usage_of(taken),
    }


def as_events(reply: Mapping[str, Any], wants_usage: bool) -> Iterator[bytes]:
    """The reply as server-sent events: all is there when the first is sent."""
    head = {name: reply[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    (choice,) = reply["choices"]
    message = choice["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if "reasoning_content" in message:
        deltas.append({"reasoning_content": message["reasoning_content"]})
    if message["content"]:
        deltas.append({"content": message["content"]})
    for index, call in enumerate(message.get("tool_calls", ())):
        deltas.append({"tool_calls": [{"index": index, **call}]})
    for number, delta in enumerate(deltas):
        logprobs = choice["logprobs"] if number == 0 else None
        part = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": logprobs}
        yield _event({**head, "choices": [part]})
    yield _event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if wants_usage:
        yield _event({**head, "choices": [], "usage": reply["usage"]})
    yield b"data: [DONE]\n\n"


def usage_of(taken: RecordedTurn) -> dict[str, int]:
    """How many tokens."""
    context, sampled = len(taken.context), taken.turn.num_tokens
    return {"prompt_tokens": context, "completion_tokens": sampled, "total_tokens": context + sampled}


def _calls(message: ChatMessage) -> list[dict[str, Any]]:
    """Those that can be made: a malformed one stands in the content, as the model wrote it."""
    return [
        {
            "id": call.call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
        }
        for call in message.tool_calls
        if not call.error
    ]


def _logprobs(completion: Completion | None, tokenizer: Any) -> dict[str, Any]:
    if completion is None:
        return {"content": []}
    content = []
    for token, logprob in zip(completion.token_ids.tolist(), completion.rollout_logprobs.tolist(), strict=True):
        text = str(tokenizer.decode([token]))
        content.append({"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []})
    return {"content": content, "refusal": None}


def _event(chunk: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"
