"""Reads a sampled turn: what was thought, what was said, which tools are called. Never raises for what a model wrote.

A call that can't be made stays in the content as it was written, and is a `ToolCall` whose `error` says why.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from rayzero.rollout_workers.templates import Tools
from rayzero.services.schema.episodes import ToolCall
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import ChatMessage

logger = logging.getLogger(__name__)

_CALL = re.compile(r"<tool_call>(.*?)(</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
MAX_DEPTH = 64
"""Of a call's arguments, nested in each other."""
_THOUGHT = re.compile(r"\A\s*(?:<think>)?(.*?)</think>\s*", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledText:
    """One turn, as a parser may read it."""

    text: str
    """Without the tokens that begin, end and fill a text."""
    raw: str
    """With all special tokens but the one that ended it."""
    opening: str
    """What stood before it, from the turn before on: a template may open a thought."""


class TurnParser(Protocol):
    """Of an episode's turns with the same tools."""

    def parse(self, turn: SampledText) -> ChatMessage:
        """The assistant's message."""
        ...


class CallNumbers:
    """Ids of calls, new ones within an episode and the same when it is repeated. Nine letters and digits: Mistral's
    templates take nothing else."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def next(self) -> str:
        """Never the same twice."""
        return f"call{next(self._numbers):05d}"


class TextParser:
    """`text`: the environment reads the turn itself."""

    def parse(self, turn: SampledText) -> ChatMessage:
        """All of it is content."""
        return ChatMessage(role="assistant", content=turn.text)


class HermesParser:
    """`hermes`: JSON between `<tool_call>` tags, as Hermes', Qwen's and SmolLM's models write it."""

    def __init__(self, numbers: CallNumbers) -> None:
        self._numbers = numbers

    def parse(self, turn: SampledText) -> ChatMessage:
        """A thought up to `</think>`, then content and calls."""
        reasoning, text = _split_thought(turn.text)
        calls: list[ToolCall] = []
        kept, at = [], 0
        for found in _CALL.finditer(text):
            call = made_call(found[1], self._numbers.next())
            calls.append(call)
            kept += [text[at : found.start()], found[0] if call.error else ""]
            at = found.end()
        content = "".join([*kept, text[at:]])
        content = content.strip() if calls else content
        return ChatMessage(role="assistant", content=content, reasoning=reasoning, tool_calls=tuple(calls))


class TemplateParser:
    """The tokenizer's own response template, as transformers knows it."""

    def __init__(self, tokenizer: Any, tools: Tools, numbers: CallNumbers) -> None:
        self._tokenizer, self._tools, self._numbers = tokenizer, list(tools), numbers

    def parse(self, turn: SampledText) -> ChatMessage:
        """What the template finds; all of it as content, with a malformed call, where it finds nothing it can read."""
        try:
            found = self._tokenizer.parse_response(turn.raw, prefix=turn.opening, tools=self._tools or None)
            calls = [_call_of(each, self._numbers.next()) for each in found.get("tool_calls") or ()]
        except Exception as error:  # JSON that is none, a field that is missing: whatever a model wrote
            return _malformed(turn, f"it cannot be read: {_first_line(error)}", self._numbers)
        if broken := [call for call in calls if call.error]:
            return _malformed(turn, broken[0].error, self._numbers)
        return ChatMessage(
            role="assistant",
            content=str(found.get("content") or ""),
            reasoning=str(found.get("thinking") or found.get("reasoning_content") or ""),
            tool_calls=tuple(calls),
        )


class EngineParser:
    """One of vLLM's tool parsers. What such a parser cannot read is content to it, and no call."""

    def __init__(self, name: str, tokenizer: Any, tools: Tools, numbers: CallNumbers) -> None:
        """Raises RecipeError for a name that vLLM does not have, and for a parser that does not fit the model."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.tool_parsers import ToolParserManager

        from rayzero.rollout_workers.episodes.bounded_patterns import bound_patterns  # with a package of vLLM's

        try:
            kind = ToolParserManager.get_tool_parser(name)
        except KeyError:
            known = ", ".join(sorted({"auto", "hermes", "text", *ToolParserManager.list_registered()}))
            raise RecipeError(f"environment.tool_parser: there is no {name}; there are {known}") from None
        try:
            bound_patterns(kind)
            self._request = ChatCompletionRequest(
                model="policy", messages=[{"role": "user", "content": ""}], tools=list(tools) or None
            )
            self._make: Callable[[], Any] = lambda: kind(tokenizer, self._request.tools)
            self._make()
        except Exception as error:
            raise RecipeError(
                f"environment.tool_parser {name} does not fit the model or its tools: {_first_line(error)}"
            ) from None
        self._numbers = numbers

    def parse(self, turn: SampledText) -> ChatMessage:
        """What the parser finds."""
        reasoning, raw = _split_thought(turn.raw)
        try:
            found = self._make().extract_tool_calls(raw, self._request)  # a new one each: they keep state
            called = list(found.tool_calls) if found.tools_called else []
            calls = [
                _call_of({"name": each.function.name, "arguments": each.function.arguments}, self._numbers.next())
                for each in called
            ]
        except Exception as error:
            return _malformed(turn, f"it cannot be read: {_first_line(error)}", self._numbers)
        if broken := [call for call in calls if call.error]:
            return _malformed(turn, broken[0].error, self._numbers)
        content = str(found.content or "") if calls else _split_thought(turn.text)[1]
        return ChatMessage(role="assistant", content=content, reasoning=reasoning, tool_calls=tuple(calls))


def parser_of(name: str, tokenizer: Any, tools: Tools, numbers: CallNumbers) -> TurnParser:
    """A parser by its name in the recipe, for turns that were given `tools`; `numbers`: the episode's.

    Raises:
        RecipeError: there is none of this name, or it does not fit the model.
    """
    has_template = getattr(tokenizer, "response_template", None) is not None
    if name == "text" or (name == "auto" and not tools and not has_template):
        return TextParser()
    if name == "auto" and has_template:
        return TemplateParser(tokenizer, tools, numbers)
    if name in ("auto", "hermes"):
        return HermesParser(numbers)
    return EngineParser(name, tokenizer, tools, numbers)


def made_call(text: str, call_id: str) -> ToolCall:
    """A call from its JSON: `{"name": …, "arguments": {…}}`."""
    try:
        given = _read_json(text)
    except (ValueError, RecursionError) as error:
        return ToolCall(name="", call_id=call_id, error=f"the tool call is no JSON: {_first_line(error)}")
    return _call_of(given, call_id)


def _call_of(given: Any, call_id: str) -> ToolCall:
    """A call from what was read, in OpenAI's form or without its frame."""
    frame = given.get("function", given) if isinstance(given, Mapping) else None
    if not isinstance(frame, Mapping):
        return ToolCall(name="", call_id=call_id, error="the tool call is no JSON object")
    name = frame.get("name")
    if not isinstance(name, str) or not name:
        return ToolCall(name="", call_id=call_id, error='the tool call names no tool: it has no "name"')
    arguments = frame.get("arguments", frame.get("parameters"))
    if isinstance(arguments, str):
        try:
            arguments = _read_json(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError) as error:
            return ToolCall(name=name, call_id=call_id, error=f"its arguments are no JSON: {_first_line(error)}")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        return ToolCall(name=name, call_id=call_id, error="its arguments are no JSON object")
    if not _is_shallow(arguments):
        return ToolCall(name=name, call_id=call_id, error=f"its arguments are nested deeper than {MAX_DEPTH}")
    return ToolCall(name=name, arguments=dict(arguments), call_id=call_id)


def _read_json(text: str) -> Any:
    """JSON as the standard has it: NaN is none, and text is what has an encoding."""
    text.encode()

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON number")

    value = json.loads(text, parse_constant=refuse)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair can't be encoded: UnicodeEncodeError
    return value


def _is_shallow(value: Any, left: int = MAX_DEPTH) -> bool:
    """What is nested without end would end the process that pickles it."""
    if isinstance(value, Mapping):
        value = list(value.values())
    return not isinstance(value, list) or (left > 0 and all(_is_shallow(each, left - 1) for each in value))


def _malformed(turn: SampledText, error: str, numbers: CallNumbers) -> ChatMessage:
    reasoning, text = _split_thought(turn.text)
    call = ToolCall(name="", call_id=numbers.next(), error=error)
    return ChatMessage(role="assistant", content=text, reasoning=reasoning, tool_calls=(call,))


def _split_thought(text: str) -> tuple[str, str]:
    """What stands before `</think>`, and what after it."""
    found = _THOUGHT.match(text) if "</think>" in text else None
    return (found[1].strip(), text[found.end() :]) if found else ("", text)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
