"""What a conversation's new messages add to it as text: what was sampled is never rendered again.

A stand-in takes the place of the turn that was sampled; what the template writes after it is what comes next: the end
of the turn, the new messages, and where the assistant begins to speak again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from rayzero.rollout_workers.templates import ChatTokenizer, Tools, chat_text
from rayzero.services.schema.episodes import ToolCall
from rayzero.services.schema.messages import ChatMessage

_QUESTION = ChatMessage(role="user", content="?")
_CALL = ToolCall(name="look", arguments={"for": "it"}, call_id="call00000")
_ANSWER = ChatMessage(role="tool", content="found", tool_call_id="call00000")


def suffix_text(
    new: Sequence[ChatMessage],
    last: ChatMessage,
    tokenizer: ChatTokenizer,
    tools: Tools,
    stop_texts: Sequence[str],
) -> str | None:
    """What follows the token with which the sampled turn `last` ended. None: this template changes what stands before
    the new messages, or writes it otherwise, so that they are no suffix.

    `stop_texts`: of all tokens that end a turn; the template's own is not written again after a sampled one.
    """
    word = _unused(new, tools)
    stand_ins = [ChatMessage(role="assistant", content=word)]
    if calls := [call for call in last.tool_calls if not call.error]:
        # Some templates write the answers before the content, but none before the calls.
        marked = (*calls[:-1], replace(calls[-1], arguments={"at": word}))
        turn = replace(last, content="", reasoning="")
        stand_ins = [replace(turn, content=word), replace(turn, tool_calls=marked), *stand_ins]
    for stand_in in stand_ins:
        text = _after(word, stand_in, new, tokenizer, tools, stop_texts)
        if text is not None:
            return text
    return None


def why_no_suffix(tokenizer: ChatTokenizer, stop_texts: Sequence[str] = (), tools: Tools = ()) -> str:
    """What of a model's chat template keeps later turns from being appended to what was sampled, in words; empty:
    nothing does. Such a conversation is rendered anew at every turn, as a branch of its own: dear, and never wrong.

    `stop_texts`: of the tokens that end a turn; empty: whatever stands in angle brackets may be one.
    """
    said = ChatMessage(role="assistant", content="")
    called = replace(said, tool_calls=(_CALL,))
    cases = {
        "a user's message": (said, (_QUESTION,)),
        "a tool's answer": (called, (_ANSWER,)),
        "two tools' answers": (called, (_ANSWER, _ANSWER)),
    }
    ends = stop_texts or _bracketed(tokenizer)
    failing = [what for what, (last, new) in cases.items() if suffix_text(new, last, tokenizer, tools, ends) is None]
    return f"it renders the conversation otherwise once {' or '.join(failing)} follows a turn" if failing else ""


def _after(
    mark: str,
    turn: ChatMessage,
    new: Sequence[ChatMessage],
    tokenizer: ChatTokenizer,
    tools: Tools,
    stop_texts: Sequence[str],
) -> str | None:
    words = [f"{mark}{number}" for number in range(len(new))]
    probes = [replace(message, content=word) for message, word in zip(new, words, strict=True)]
    try:
        alone = chat_text((_QUESTION, turn), tokenizer, tools, asks=False)
        continued = chat_text((_QUESTION, turn, *new), tokenizer, tools)
        probed = chat_text((_QUESTION, turn, *probes), tokenizer, tools).partition(mark)[2]
    except Exception:  # a template is a program of its own: one that refuses a tool's answer to no call, say
        return None
    if mark not in alone or mark not in continued or not all(word in probed for word in words):
        return None  # of the turn, or of what is new, something is left out
    rest, tail = continued.partition(mark)[2], alone.partition(mark)[2]
    length = next((at for at, pair in enumerate(zip(rest, tail, strict=False)) if pair[0] != pair[1]), len(tail))
    same = tail[: min(length, len(rest))]
    ends = [same.rfind(text) + len(text) for text in stop_texts if text and text in same]
    if ends:
        return rest[max(ends) :]
    if same != tail or (turn.tool_calls and tail.strip()):
        return None  # where the turn ends, this template does not say, or it writes the turn otherwise
    return rest


def _bracketed(tokenizer: ChatTokenizer) -> list[str]:
    try:
        text = chat_text((_QUESTION, replace(_QUESTION, role="assistant")), tokenizer, asks=False)
    except Exception:
        return []
    return re.findall(r"<[^<>\s]+>", text)


def _unused(new: Sequence[ChatMessage], tools: Tools) -> str:
    """A word that is in none of what is rendered, of letters alone: no template changes or strips it."""
    taken = repr(new) + repr(tools)
    return next(word for word in (f"turn{'x' * length}y" for length in itertools.count(1)) if word not in taken)
