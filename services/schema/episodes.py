"""The messages of an episode: a conversation of several turns with tools, trained on the tokens that were sampled.

    EpisodeRequest -> (session) SessionTurn … -> Completion with turns and branches -> EpisodeOutcome

A session lives in one rollout worker, which alone knows tokens; an environment, or an agent, asks it for the next turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rayzero.services.schema.messages import ChatMessage, Completion, FinishReason, GroupBatch, Prompt, Sampling


POLICY_MODEL = "policy"
"""What the model that is trained is called at an episode's OpenAI-compatible endpoint."""


class EpisodeEnd(StrEnum):
    """Why an episode is over."""

    ANSWERED = "answered"
    """The model said its last word: a turn without a tool call, or the environment was done."""
    MAX_TURNS = "max_turns"
    MAX_TOOL_CALLS = "max_tool_calls"
    MAX_TOKENS = "max_tokens"
    """A turn, or the episode, used up its tokens."""
    CONTEXT = "context"
    """No room is left in the model's window."""
    STEP_DEADLINE = "step_deadline"
    EPISODE_DEADLINE = "episode_deadline"
    ABORTED = "aborted"
    PARSE_ERROR = "parse_error"
    """A malformed tool call, where the recipe ends an episode for one."""
    ENVIRONMENT_ERROR = "environment_error"
    """The environment failed: an error, never a reward of 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A tool that the model asked for. `error` says why a malformed call cannot be made."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    call_id: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Tokens [start, end) of a completion: what the model sampled at one go."""

    start: int
    end: int
    finish_reason: FinishReason
    tool_calls: tuple[ToolCall, ...] = ()
    reward: float | None = None
    """What the environment said of this turn alone; None: nothing."""
    engine_s: float = 0.0
    """Seconds that the engine took for it."""
    environment_s: float = 0.0
    """Seconds from its end until the environment had answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """A completion that leaves another one's context: a rewritten history, a parallel call, a sub-agent."""

    parent: int
    """0: the episode's main completion; k: `branches[k - 1]`, which stands before this one."""
    fork: int
    """Tokens that it shares with its parent, counted from the prompt's first: at least 1, at most all of the parent's
    context and completion. A fork within the prompt is a prompt of its own."""
    completion: Completion
    """All that follows the fork."""
    reason: str = ""
    """Why it is no continuation: `rewritten`, `drift`, `parallel`, …"""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeRequest:
    """One episode of a group. Made by the controller; a rollout worker opens a session for it."""

    group_id: int
    index: int
    """Which of the group's episodes, from 0."""
    prompt: Prompt
    sampling: Sampling
    """`max_tokens` bounds one turn; `num_completions` is 1; `seed` is the episode's own."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the tools, as the model's chat template wants them."""
    max_tokens: int | None = None
    """Sampled and observed tokens of the whole episode; None: what the model's window holds."""
    max_turns: int | None = None
    """Of an agent, which asks for them by itself; None: whatever drives the episode counts them."""
    max_tool_calls: int | None = None
    """That an agent's model may make before its last turn; None: whatever drives the episode counts them."""
    tool_parser: str = "auto"
    """What reads tool calls out of a turn: `auto`, `text` (nothing does), `hermes`, or a parser of vLLM's by name."""
    environment_seed: int = 0
    """Of the environment: the same for all of a group, so that its episodes begin alike."""
    wave: GroupBatch | None = None
    """The episodes that take their turns in lockstep with it, so that they are computed the same way every time; None:
    each turn starts at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionTurn:
    """What the model said in one turn of a session."""

    message: ChatMessage
    """Role assistant, with its tool calls."""
    finish_reason: FinishReason
    num_tokens: int
    """Sampled in this turn."""
    end: EpisodeEnd | None = None
    """The session takes no further turn for this reason; None: it does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeRecord:
    """What a session recorded, at its close: the tokens that the engine was fed and returned."""

    prompt_token_ids: NDArray[np.int32]
    """[P] the rendered prompt, tools included."""
    prompt_text: str
    completion: Completion
    """With its turns and branches; `text` is what the model said last, whatever branch that was on. No outcome yet:
    that is the environment's."""
    messages: tuple[ChatMessage, ...] = ()
    """What was said after the prompt, branch by branch: before each turn what is new since the one it follows."""
    prompt_routed_experts: NDArray[np.uint8] | NDArray[np.uint16] | None = None
    """See `GroupCompletions`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeOutcome:
    """How an episode went, as its environment saw it."""

    end: EpisodeEnd
    reward: float | None = None
    """The environment's own; None: it gives none, and the rubric alone judges."""
    messages: tuple[ChatMessage, ...] = ()
    """The conversation after the prompt, observations included."""
    turn_rewards: tuple[float | None, ...] = ()
    environment_s: tuple[float, ...] = ()
    """Seconds of the environment after each turn."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    """Of an `environment_error` or a deadline, in words."""
