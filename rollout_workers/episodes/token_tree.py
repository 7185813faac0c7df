"""All tokens that an episode's engine was fed and returned, as a tree: the record that is trained on.

A path is a run of tokens without a fork: path 0 follows the prompt, every other one leaves an earlier path somewhere.
What was fed is compared with the tree token by token, so a context that differs in one token is another path, whatever
its messages say, and nothing is ever recorded that was not fed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rayzero.rollout_workers.routed_experts import Experts, joined
from rayzero.services.schema.episodes import Branch, ToolCall, Turn
from rayzero.services.schema.errors import PromptRefused
from rayzero.services.schema.messages import Completion, FinishReason, VersionSpan


@dataclass(slots=True)
class TokenPath:
    """One run of tokens, and where it left its parent."""

    tokens: NDArray[np.int32]
    """All of its context from the prompt's first token on, and its own."""
    parent: int
    fork: int
    """Tokens that it shares with its parent, counted from the prompt's first."""
    reason: str = ""
    is_sampled: list[NDArray[np.bool_]] = field(default_factory=list)
    """Of its own tokens, piece by piece; so are the log-probabilities."""
    logprobs: list[NDArray[np.float32]] = field(default_factory=list)
    spans: list[VersionSpan] = field(default_factory=list)
    routed_experts: Experts | None = None
    """Of its own tokens, from the first on. A turn's last token has its row from the turn that comes next."""
    turns: list[Turn] = field(default_factory=list)
    text: str = ""
    """What was said last."""
    finish_reason: FinishReason = "stop"
    is_open: bool = True
    """Whether more may follow: not after a turn that was cut off."""
    ended: float = 0.0
    """When its last turn was there, on the monotonic clock."""

    @property
    def num_own(self) -> int:
        """Tokens after the fork."""
        return len(self.tokens) - self.fork


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledTurn:
    """What one call of the engine gave, and what is recorded with it."""

    completion: Completion
    tool_calls: tuple[ToolCall, ...] = ()
    is_over: bool = False
    """The branch ends here: the turn was cut off."""
    began: float = 0.0
    """When it was asked for, on the monotonic clock."""
    ended: float = 0.0


class TokenTree:
    """One episode's."""

    def __init__(self, prompt: NDArray[np.int32], policy_version: int) -> None:
        """`prompt`: [P] tokens. `policy_version`: what a path without any token is said to come from."""
        self.prompt = prompt
        self._policy_version = policy_version
        self.prompt_routed_experts: Experts | None = None
        """Of the prompt's tokens, as the first turn after it had them."""
        self.paths = [TokenPath(tokens=prompt, parent=0, fork=len(prompt))]

    @property
    def num_tokens(self) -> int:
        """Recorded after the prompt, in all paths; what paths share is counted once."""
        return sum(path.num_own for path in self.paths)

    def shared(self, fed: NDArray[np.int32]) -> int:
        """How many tokens, from the first, a context has in common with the tree."""
        return self._nearest(fed)[1]

    def check(self, fed: NDArray[np.int32]) -> None:
        """Whether a context could be recorded.

        Raises:
            PromptRefused: it has no token in common with the prompt: no branch could leave there.
        """
        if common_prefix(self.prompt[:1], fed) == 0:
            raise PromptRefused("the conversation has not even its first token in common with the episode's prompt")

    def broken_turn(self, fed: NDArray[np.int32]) -> NDArray[np.int32] | None:
        """Where a context leaves the tree within a sampled turn: the tree's tokens up to that turn's end. None: it does
        not."""
        number, shared = self._nearest(fed)
        path = self.paths[number]
        if shared == len(fed):
            return None
        for turn in path.turns:
            if path.fork + turn.start <= shared < path.fork + turn.end:
                return path.tokens[: path.fork + turn.end]
        return None

    def record(self, fed: NDArray[np.int32], turn: SampledTurn, reason: str) -> tuple[int, int]:
        """Take in a context [F] as it was fed, and what was sampled after it; the path, and its number of tokens now.

        `reason`: why it is no continuation, if it turns out to be none. What `check` refuses can't be recorded.
        """
        number, shared = self._nearest(fed)
        path = self.paths[number]
        if not (path.is_open and shared == len(path.tokens)):
            while number > 0 and shared <= self.paths[number].fork:
                number = self.paths[number].parent
            path = TokenPath(tokens=fed[:shared], parent=number, fork=shared, reason=reason)
            self.paths.append(path)
            number = len(self.paths) - 1
        self._append(path, fed[shared:], turn)
        return number, len(path.tokens)

    def completion(self, text: str) -> Completion:
        """The whole record as a completion; `text`: what was said last, on whatever path."""
        main, *others = (self._completion(path) for path in self.paths)
        branches = tuple(
            Branch(parent=path.parent, fork=path.fork, completion=completion, reason=path.reason)
            for path, completion in zip(self.paths[1:], others, strict=True)
        )
        return replace(main, text=text, branches=branches)

    def _nearest(self, fed: NDArray[np.int32]) -> tuple[int, int]:
        """The path that shares most with a context, one that it continues before others; and how much."""
        best, best_key = 0, (-1, False)
        for number, path in enumerate(self.paths):
            shared = common_prefix(path.tokens, fed)
            key = (shared, path.is_open and shared == len(path.tokens))
            if key > best_key:
                best, best_key = number, key
        return best, best_key[0]

    def _append(self, path: TokenPath, observed: NDArray[np.int32], turn: SampledTurn) -> None:
        made, own = turn.completion, path.num_own
        start, end = own + len(observed), own + len(observed) + made.num_tokens
        path.tokens = np.concatenate([path.tokens, observed, made.token_ids])
        path.is_sampled += [np.zeros(len(observed), dtype=bool), np.ones(made.num_tokens, dtype=bool)]
        path.logprobs += [np.full(len(observed), np.nan, dtype=np.float32), made.rollout_logprobs]
        for index, span in enumerate(made.version_spans):
            # What was observed counts with what was sampled after it: spans stay without a gap.
            begin = own if index == 0 else start + span.start
            _extend(path.spans, VersionSpan(start=begin, end=start + span.end, policy_version=span.policy_version))
        if made.routed_experts is not None:
            self._note_routing(path, made.routed_experts)
        if path.turns:
            waited_s = max(0.0, turn.began - path.ended)
            path.turns[-1] = replace(path.turns[-1], environment_s=waited_s)
        path.turns.append(
            Turn(
                start=start,
                end=end,
                finish_reason=made.finish_reason,
                tool_calls=turn.tool_calls,
                engine_s=turn.ended - turn.began,
            )
        )
        path.text, path.finish_reason, path.is_open = made.text, made.finish_reason, not turn.is_over
        path.ended = turn.ended

    def _note_routing(self, path: TokenPath, whole: Experts) -> None:
        """Take in the rows of a path and all that stands before it: the last token of a turn has none until another one
        was sampled after it, on whatever path."""
        end = len(path.tokens)
        while True:
            path.routed_experts = joined(path.routed_experts, whole[path.fork : end])
            if path is self.paths[0]:
                break
            end, path = path.fork, self.paths[path.parent]
        self.prompt_routed_experts = joined(self.prompt_routed_experts, whole[: min(end, len(self.prompt))])

    def _completion(self, path: TokenPath) -> Completion:
        is_sampled = np.concatenate([np.zeros(0, dtype=bool), *path.is_sampled])
        empty = VersionSpan(start=0, end=0, policy_version=self._policy_version)
        return Completion(
            text=path.text,
            token_ids=path.tokens[path.fork :].copy(),
            rollout_logprobs=np.concatenate([np.zeros(0, dtype=np.float32), *path.logprobs]),
            version_spans=tuple(path.spans) or (empty,),
            finish_reason=path.finish_reason,
            is_sampled=None if is_sampled.all() else is_sampled,
            turns=tuple(path.turns),
            routed_experts=path.routed_experts,
        )


def common_prefix(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    """How many tokens two sequences share from their first on."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


def _extend(spans: list[VersionSpan], span: VersionSpan) -> None:
    """Append a span, or lengthen the last one where the version is the same."""
    if spans and spans[-1].policy_version == span.policy_version:
        span = VersionSpan(start=spans.pop().start, end=span.end, policy_version=span.policy_version)
    spans.append(span)
