"""The messages that travel a prompt's way, in the order in which they are made.

    Prompt -> GroupRequest -> GroupCompletions -> Verdict -> Group -> UpdateResult -> WeightManifest -> WeightReceipt

All are frozen and keyword-only. Arrays are numpy, never torch: a message must unpickle where torch is not installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.episodes import Branch, EpisodeEnd, EpisodeOutcome, ToolCall, Turn

if TYPE_CHECKING:  # the reward tools start in a blink: they handle no arrays and do not wait for numpy
    import numpy as np
    from numpy.typing import NDArray

FinishReason = Literal["stop", "length", "abort"]

_OUT_OF_TOKENS = (EpisodeEnd.MAX_TOKENS, EpisodeEnd.CONTEXT)
EQUAL_WITHIN = 1e-8
"""Rewards nearer than this are equal: sums of the same scores differ by rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatMessage:
    """One turn of a chat prompt, e.g. `ChatMessage(role="user", content="What is 2 + 2?")`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    reasoning: str = ""
    """What an assistant thought before it spoke, where the template keeps it apart."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant's turn."""
    tool_call_id: str = ""
    """Which call a tool's message answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A question with what is needed to judge its answers. Made by services/data/prompts.py, read by every worker.

    Example: `Prompt(prompt_id="train/17", messages=(ChatMessage(role="user", content="What comes after 8?"),),
    answer="9", source="successor")`.
    """

    prompt_id: str
    """Unique within a run and stable across resumes."""
    messages: tuple[ChatMessage, ...]
    """What the template renders. A prompt that is plain text is one user message."""
    answer: Any
    """The answer spec, JSON-like: a gold string for math, `{"language": …, "tests": […]}` for code."""
    source: str = "default"
    """Which data source it came from: chooses the rubric and splits the metrics."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the data row, handed to custom rewards by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How one group is sampled. Every parameter is explicit: an engine's own defaults never apply."""

    num_completions: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    """1: all tokens. These three are for evaluations and `rayzero generate`: what is trained on is not cut."""
    top_k: int = 0
    """0: all tokens."""
    min_p: float = 0.0
    """0: all tokens."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion; they stay in it."""
    seed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupBatch:
    """Groups that one worker starts together, so that they are computed the same way every time."""

    batch_id: str
    """Never used twice."""
    size: int
    """Requests that belong to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupRequest:
    """One prompt to be completed `sampling.num_completions` times. Made by the controller, read by a rollout worker."""

    group_id: int
    """The ledger's number of the group: admission order, never reused."""
    prompt: Prompt
    sampling: Sampling
    batch: GroupBatch | None = None
    """The batch that it waits for; None: it starts at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionSpan:
    """Tokens [start, end) of a completion were sampled from weights `policy_version`."""

    start: int
    end: int
    policy_version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One sampled answer. Made by rollout_workers, read by rewards and the learner."""

    text: str
    token_ids: NDArray[np.int32]
    """[T] all that follows the prompt: sampled tokens, the end-of-sequence token included when it was sampled."""
    rollout_logprobs: NDArray[np.float32]
    """[T] log-probability of each token under the distribution it was really sampled from."""
    version_spans: tuple[VersionSpan, ...]
    """Contiguous and in order; they cover [0, T). One span of length 0 for an empty completion."""
    finish_reason: FinishReason
    is_sampled: NDArray[np.bool_] | None = None
    """[T] False where the environment spoke: context, never trained, its log-probability NaN. None: all are sampled."""
    turns: tuple[Turn, ...] = ()
    """Of an episode, in order; they cover the sampled tokens."""
    branches: tuple[Branch, ...] = ()
    """What left this completion's context, in the order in which it did; of an episode's main completion alone."""
    end: EpisodeEnd | None = None
    """Why the episode is over; None: it is none."""
    outcome: EpisodeOutcome | None = None
    """How the environment saw it."""
    routed_experts: NDArray[np.uint8] | NDArray[np.uint16] | None = None
    """[R, L, K] the K experts that the engine sent each of the first R tokens to, in each of the model's L layers; 0 in
    layers without experts. The last sampled token is fed to no engine: R is T - 1 where all is recorded. None: nothing
    is. Inside an engine the prompt's tokens come first."""

    @property
    def num_tokens(self) -> int:
        """T: sampled tokens, and those of an episode's environment."""
        return len(self.token_ids)

    @property
    def paths(self) -> tuple[Completion, ...]:
        """Itself, then its branches: each what follows its fork."""
        return (self, *(branch.completion for branch in self.branches))

    @property
    def num_path_tokens(self) -> int:
        """Tokens of all paths, those of an episode's environment among them."""
        if not self.branches:
            return len(self.token_ids)
        return sum(len(path.token_ids) for path in self.paths)

    @property
    def num_sampled(self) -> int:
        """Sampled tokens of all paths: those that are trained."""
        if self.is_sampled is None and not self.branches:  # nearly always, and asked for every completion of a run
            return len(self.token_ids)
        return sum(len(p.token_ids) if p.is_sampled is None else int(p.is_sampled.sum()) for p in self.paths)

    @property
    def is_truncated(self) -> bool:
        """It ran out of tokens, of a turn's, the episode's or the model's window."""
        return self.finish_reason == "length" or (self.end is not None and self.end in _OUT_OF_TOKENS)

    @property
    def oldest_version(self) -> int:
        """The policy version of the stalest token: what staleness is counted from."""
        if len(self.version_spans) == 1 and not self.branches:  # nearly always, and asked for every completion of a run
            return self.version_spans[0].policy_version
        return min(span.policy_version for path in self.paths for span in path.version_spans)

    @property
    def newest_version(self) -> int:
        """The policy version of the freshest token."""
        if len(self.version_spans) == 1 and not self.branches:
            return self.version_spans[0].policy_version
        return max(span.policy_version for path in self.paths for span in path.version_spans)


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutStats:
    """How busy one engine is. Gauges are as of its last step; counters run from its start."""

    worker: str
    policy_version: int
    num_running: int
    """Completions being computed."""
    num_waiting: int
    """Completions inside the engine that have not begun, or were pushed out for want of memory."""
    kv_cache_usage: float
    """0 … 1."""
    generated_tokens: int
    prompt_tokens: int
    preemptions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupCompletions:
    """All completions of one group, from one engine. Made by a rollout worker, read by the controller."""

    group_id: int
    prompt_token_ids: NDArray[np.int32]
    """[P] the rendered prompt: the learner trains on exactly these tokens."""
    prompt_text: str
    """The rendered prompt as text: the format reward must know whether it already ended in <think>."""
    completions: tuple[Completion, ...]
    worker: str
    seconds: float
    load: RolloutStats | None = None
    """How busy the engine was when the group was done; None: it does not say."""
    prompt_routed_experts: NDArray[np.uint8] | NDArray[np.uint16] | None = None
    """[R, L, K] as `Completion.routed_experts`, of the prompt's first R tokens, as one of the completions had it."""


class VerdictStatus(StrEnum):
    """`correct` only when the reward is full; `error` is an infrastructure failure and never a reward of 0."""

    CORRECT = "correct"
    WRONG = "wrong"
    ERROR = "error"


_ERROR = VerdictStatus.ERROR


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a rubric says of one completion. Made by rewards; read by the buffer, the learner and the viewer.

    Example: `Verdict(reward=1.1, components={"accuracy": 1.0, "format": 0.1}, status=VerdictStatus.CORRECT,
    reason="accuracy: 42 equals 42", seconds=0.002)`.
    """

    reward: float
    """Weighted sum of the components. NaN exactly when status is `error`, so that nothing can train on it unnoticed."""
    components: Mapping[str, float]
    """Unweighted score of every named reward that returned one."""
    status: VerdictStatus
    reason: str
    seconds: float
    tests: tuple[Mapping[str, Any], ...] = ()
    """Per-test results of a code reward: at least `{"status": "pass" | "fail" | ..., "seconds": ...}`."""
    cause: ErrorCause | None = None
    """Of an error, and of nothing else. `reason` says it in words, of every component that failed."""
    parts: Mapping[str, tuple[float, float]] | None = None
    """(weight, score) of every component that the reward is the sum of; 0 behind a closed gate. None: not said."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What custom rewards said of the completion besides (`log_extra`), plain data by `component/column`."""

    @property
    def is_error(self) -> bool:
        """No verdict was reached: it counts neither for nor against, and nothing is trained on it."""
        return self.status is _ERROR or not math.isfinite(self.reward)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """A completion with its verdict."""

    completion: Completion
    verdict: Verdict
    kl_rollout: float | None = None
    """Mean k3-KL of its tokens between their engine and the learner at its update's start. None: not trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A prompt with its G rollouts. Made by the group buffer, read by the learner."""

    group_id: int
    prompt: Prompt
    prompt_token_ids: NDArray[np.int32]
    rollouts: tuple[Rollout, ...]
    worker: str = ""
    prompt_routed_experts: NDArray[np.uint8] | NDArray[np.uint16] | None = None
    """See `GroupCompletions`."""

    @property
    def oldest_version(self) -> int:
        """The policy version of the stalest token in the group."""
        return min(rollout.completion.oldest_version for rollout in self.rollouts)

    @property
    def judged(self) -> tuple[Rollout, ...]:
        """Those with a verdict."""
        rollouts = self.rollouts
        # Asked several times for every rollout of a run: with no property between.
        return tuple([r for r in rollouts if r.verdict.status is not _ERROR and math.isfinite(r.verdict.reward)])

    @property
    def is_uniform(self) -> bool:
        """All rewards are equal: it has no advantage and teaches nothing. So has one with fewer than two verdicts."""
        rewards = [rollout.verdict.reward for rollout in self.judged]
        return not rewards or max(rewards) - min(rewards) < EQUAL_WITHIN

    @property
    def is_uniform_by_part(self) -> bool:
        """Every component of the reward is equal, not just their sum: it teaches nothing where each is normalised by
        itself (GDPO), either. A component that does not apply to a completion compares with none."""
        scores: dict[str, list[float]] = {}
        for rollout in self.judged:
            parts = rollout.verdict.parts
            for name, (_, score) in ({"": (1.0, rollout.verdict.reward)} if parts is None else parts).items():
                scores.setdefault(name, []).append(score)
        return all(max(column) - min(column) < EQUAL_WITHIN for column in scores.values())

    @property
    def num_tokens(self) -> int:
        """Sampled tokens of all completions; neither the prompt is counted nor what an environment said."""
        return sum(rollout.completion.num_sampled for rollout in self.rollouts)


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateResult:
    """One optimizer step (or several inner ones on one batch), done. Made by the learner, read by the controller."""

    policy_version: int
    metrics: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    """Watched figures past their warning limit, as sentences for the user."""
    rollout_kl: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    """`Rollout.kl_rollout` by group id, in the rollouts' order; NaN for one that was not trained on."""
