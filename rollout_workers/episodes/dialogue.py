"""A conversation's messages, matched against what was said before: which tokens the next turn is sampled after.

The longest known conversation whose messages equal the request's is taken token by token as it was sampled; only what
is new is rendered and encoded. Where that is not possible the whole is rendered anew, which makes a branch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rayzero.rollout_workers.episodes.rendering import DialogueRenderer
from rayzero.rollout_workers.episodes.token_tree import TokenTree
from rayzero.rollout_workers.templates import Tools
from rayzero.services.schema.messages import ChatMessage

Messages = tuple[ChatMessage, ...]


@dataclass(slots=True, eq=False)
class SaidSoFar:
    """A conversation up to the end of a turn that the model sampled; a root: up to where it first speaks."""

    new: Messages
    """What it has beyond its parent: what was observed, and the turn. A root's: all that stands before."""
    tools: Tools
    root_tokens: NDArray[np.int32] | None = None
    """All of a root's."""
    place: tuple[int, int] = (0, 0)
    """Of any other: the tree's path that holds its tokens, and how many of that path's they are."""
    is_whole: bool = True
    """The turn came to its own end: what follows may be appended."""
    followers: list[SaidSoFar] = field(default_factory=list)

    @property
    def last(self) -> ChatMessage:
        """The turn that it ends with."""
        return self.new[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class NextTurn:
    """What the engine is to be fed."""

    tokens: NDArray[np.int32]
    """[T] the whole context."""
    after: SaidSoFar
    new: Messages
    """What stands between `after` and the turn."""
    reason: str
    """Why it may be no continuation of `after`; empty: it is one, unless another call continues it first."""

    @property
    def heard(self) -> Messages:
        """What the episode's record did not have before: of a conversation of an agent's own, all."""
        return self.after.new if self.reason == "prompt" and not self.new else self.new


class Dialogue:
    """One episode's conversations."""

    def __init__(
        self,
        renderer: DialogueRenderer,
        prompt: Messages,
        tools: Tools,
        prompt_text: str,
        tree: TokenTree,
    ) -> None:
        """They begin with the episode's prompt, which `tree` has as tokens; others come where an agent has its own."""
        self._renderer, self._prompt_text, self._tree = renderer, prompt_text, tree
        self._prompt = SaidSoFar(new=prompt, tools=tools, root_tokens=tree.prompt)
        self._roots = [self._prompt]

    def after_prompt(self, messages: Sequence[ChatMessage]) -> NextTurn:
        """`messages`: all of a conversation that follow the episode's prompt.

        Raises:
            PromptRefused: template or tokenizer cannot take them.
        """
        messages = tuple(messages)
        said, known = _longest(self._prompt, messages)
        return self._plan(said, (*self._prompt.new, *messages[:known]), messages[known:], self._prompt.tools)

    def whole(self, messages: Sequence[ChatMessage], tools: Tools) -> NextTurn:
        """`messages`: a conversation from its first message on, with the tools that it names.

        Raises:
            PromptRefused: template or tokenizer cannot take them.
        """
        messages = tuple(messages)
        best: tuple[int, SaidSoFar] | None = None
        for root in self._roots:
            if _as_json(root.tools) == _as_json(tools) and equal(root.new, messages[: len(root.new)]):
                said, known = _longest(root, messages[len(root.new) :])
                if best is None or len(root.new) + known > best[0]:
                    best = (len(root.new) + known, said)
        if best is not None:
            return self._plan(best[1], messages[: best[0]], messages[best[0] :], tools)
        tokens = self._renderer.whole(messages, tools, self._prompt_text, self._tree.prompt)
        root = SaidSoFar(new=messages, tools=tools, root_tokens=tokens)
        return NextTurn(tokens=tokens, after=root, new=(), reason="prompt")

    def said(self, turn: NextTurn, message: ChatMessage, place: tuple[int, int], is_whole: bool) -> None:
        """A turn was sampled, and recorded up to `place`: conversations may go on from here."""
        if turn.reason == "prompt" and not turn.new and turn.after not in self._roots:
            self._roots.append(turn.after)
        told = SaidSoFar(new=(*turn.new, message), tools=turn.after.tools, place=place, is_whole=is_whole)
        turn.after.followers.append(told)

    def why_forked(self, turn: NextTurn) -> str:
        """Why a turn is no continuation of what it follows, if it is none."""
        if turn.reason:
            return turn.reason
        others = [follower.new[:-1] for follower in turn.after.followers]
        return "parallel" if not others or any(equal(other, turn.new) for other in others) else "rewritten"

    def _plan(self, said: SaidSoFar, known: Messages, new: Messages, tools: Tools) -> NextTurn:
        is_root = said in self._roots
        if is_root and not new:
            return NextTurn(tokens=self._tokens(said), after=said, new=(), reason="")
        if said.is_whole and not is_root:
            suffix = self._renderer.suffix(new, said.last, tools)
            if suffix is not None:
                tokens = np.concatenate([self._tokens(said), suffix])
                return NextTurn(tokens=tokens, after=said, new=new, reason="")
        tokens = self._renderer.whole((*known, *new), tools, self._prompt_text, self._tree.prompt)
        return NextTurn(tokens=tokens, after=said, new=new, reason=self._why_anew(said, known, new))

    def _tokens(self, said: SaidSoFar) -> NDArray[np.int32]:
        path, end = said.place
        return said.root_tokens if said.root_tokens is not None else self._tree.paths[path].tokens[:end]

    def _why_anew(self, said: SaidSoFar, known: Messages, new: Messages) -> str:
        """Of a conversation that had to be rendered as a whole."""
        if said in self._roots:
            is_first = not said.followers and all(message.role != "assistant" for message in new)
            return "prompt" if is_first else "rewritten"
        if not said.is_whole:
            return "cut_off"
        return "stripped" if any(message.reasoning for message in known) else "template"


def equal(one: Sequence[ChatMessage], other: Sequence[ChatMessage]) -> bool:
    """Whether two runs of messages say the same."""
    return len(one) == len(other) and all(says_the_same(*pair) for pair in zip(one, other, strict=True))


def says_the_same(known: ChatMessage, given: ChatMessage) -> bool:
    """Whether a message of a request is the one that is known. Arguments of tools are compared as JSON; malformed calls
    stand in the content; reasoning and ids of calls that the request leaves out are not missed."""
    if (known.role, known.content) != (given.role, given.content):
        return False
    if given.reasoning and given.reasoning != known.reasoning:
        return False
    if known.tool_call_id and given.tool_call_id and known.tool_call_id != given.tool_call_id:
        return False
    calls, others = ([call for call in message.tool_calls if not call.error] for message in (known, given))
    return len(calls) == len(others) and all(
        call.name == other.name
        and _as_json(call.arguments) == _as_json(other.arguments)
        and (not call.call_id or not other.call_id or call.call_id == other.call_id)
        for call, other in zip(calls, others, strict=True)
    )


def _longest(root: SaidSoFar, messages: Messages) -> tuple[SaidSoFar, int]:
    """The longest conversation from a root that a request repeats, and how many of its messages that are. Of equally
    long ones one that nothing follows yet, and of those the latest."""
    best, best_key = (root, 0), (0, False, 0)
    waiting, number = [best], 0
    while waiting:
        said, known = waiting.pop()
        number += 1
        key = (known, said.is_whole and not said.followers, -number)
        if key > best_key:
            best, best_key = (said, known), key
        for follower in said.followers:  # the latest is taken from the stack first
            end = known + len(follower.new)
            if equal(follower.new, messages[known:end]):
                waiting.append((follower, end))
    return best


def _as_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=dict)
