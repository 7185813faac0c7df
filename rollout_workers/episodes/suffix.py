"""What a conversation's new messages add to it as text: what was sampled is never rendered again.

A stand-in takes the place of the turn that was sampled; what the template writes after it is what comes next: the end
of the turn, the new messages, and where the assistant begins to speak again.
"""

from __future__ import annotations

import itertools
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
    bare = ChatMessage(role="assistant", content="")
    for stand_in in (replace(last, reasoning=""), bare) if last.tool_calls else (bare,):
        text = _after(stand_in, new, tokenizer, tools, stop_texts)
        if text is not None:
            return text
    return None


def why_no_suffix(tokenizer: ChatTokenizer, tools: Tools = ()) -> str:
    """What of a model's chat template keeps later turns from being appended to what was sampled, in words; empty:
    nothing does. Such a conversation is rendered anew at every turn, as a branch of its own: dear, and never wrong."""
    said = ChatMessage(role="assistant", content="")
    called = replace(said, tool_calls=(_CALL,))
    cases = {
        "a user's message": (said, (_QUESTION,)),
        "a tool's answer": (called, (_ANSWER,)),
        "two tools' answers": (called, (_ANSWER, _ANSWER)),
    }
    failing = [what for what, (last, new) in cases.items() if suffix_text(new, last, tokenizer, tools, ()) is None]
    return f"it renders the conversation otherwise once {' or '.join(failing)} follows a turn" if failing else ""


def _after(
    stand_in: ChatMessage,
    new: Sequence[ChatMessage],
    tokenizer: ChatTokenizer,
    tools: Tools,
    stop_texts: Sequence[str],
) -> str | None:
    mark = _unused(new, tools)
    turn = replace(stand_in, content=mark)
    try:
        alone = chat_text((_QUESTION, turn), tokenizer, tools, asks=False)
        continued = chat_text((_QUESTION, turn, *new), tokenizer, tools)
    except Exception:  # a template is a program of its own: one that refuses a tool's answer to no call, say
        return None
    if mark not in alone or mark not in continued:
        return None
    rest, tail = continued.partition(mark)[2], alone.partition(mark)[2]
    if not rest.startswith(tail):
        return None
    ends = [tail.rfind(text) + len(text) for text in stop_texts if text and text in tail]
    if not ends and turn.tool_calls and tail.strip():
        return None  # where the calls end and the turn's own end begins, this template does not say
    return rest[max(ends, default=0) :]


def _unused(new: Sequence[ChatMessage], tools: Tools) -> str:
    """A word that is in none of what is rendered, of letters alone: no template changes or strips it."""
    taken = repr(new) + repr(tools)
    return next(word for word in (f"turn{'x' * length}" for length in itertools.count(1)) if word not in taken)
