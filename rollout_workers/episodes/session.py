"""One episode's session: takes a conversation, samples the next turn within the budgets, records what was fed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rayzero.rollout_workers.continuation import seed_after
from rayzero.rollout_workers.episodes.dialogue import Dialogue, NextTurn
from rayzero.rollout_workers.episodes.rendering import DialogueRenderer
from rayzero.rollout_workers.episodes.token_tree import SampledTurn, TokenTree
from rayzero.rollout_workers.episodes.tool_calls import SampledText, TurnParser
from rayzero.rollout_workers.templates import Tools
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord, EpisodeRequest, SessionTurn
from rayzero.services.schema.errors import EpisodeClosed, RayzeroError, WorkerError
from rayzero.services.schema.messages import ChatMessage, Completion, Sampling

MAX_CALLS_AT_ONCE = 32
"""Turns of one episode that are sampled side by side; more wait. An agent may ask for any number."""
LOOK_S = 0.5
"""Between two looks at an agent that may have gone astray."""
OPENING = 512
"""Tokens before a turn that its parser sees: a template may open a thought there."""


class TurnSampler(Protocol):
    """The engine, as a session sees it."""

    async def __call__(self, request: EpisodeRequest, tokens: NDArray[np.int32], sampling: Sampling) -> Completion:
        """Sample one completion of a context [T]; `sampling.seed` is the turn's own."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedTurn:
    """A turn, and the tokens of it."""

    turn: SessionTurn
    context: NDArray[np.int32]
    """[T] what it was sampled after."""
    completion: Completion | None
    """None: the budgets left no room to sample any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionParts:
    """What a session is made of."""

    renderer: DialogueRenderer
    parser: Callable[[Tools], TurnParser]
    """Of turns that were given these tools."""
    tokenizer: Any
    sample: TurnSampler
    max_model_tokens: int


class EpisodeSession:
    """From its opening to its close."""

    def __init__(
        self,
        request: EpisodeRequest,
        prompt_text: str,
        prompt: NDArray[np.int32],
        policy_version: int,
        parts: SessionParts,
    ) -> None:
        """`prompt`: [P] rendered once, tools included."""
        self.request, self.prompt_text = request, prompt_text
        self.is_aborted = False
        self.used_at = time.monotonic()
        """When it was last asked for something."""
        self._parts = parts
        self._tree = TokenTree(prompt, policy_version)
        self._dialogue = Dialogue(parts.renderer, request.prompt.messages, request.tools, prompt_text, self._tree)
        self._calls: set[asyncio.Task[Any]] = set()
        self._places = asyncio.Semaphore(MAX_CALLS_AT_ONCE)
        self._is_closed = False
        self._num_turns = self._num_tool_calls = 0
        self._is_begun = False
        self._failure: RayzeroError | None = None
        """Why the engine could not sample the last turn."""
        self._heard: list[tuple[int, tuple[ChatMessage, ...]]] = []
        """Of each turn: its path, what was new before it, and itself."""
        self._last_text = ""
        self._end: EpisodeEnd | None = None

    async def turn(self, messages: Sequence[ChatMessage]) -> SessionTurn:
        """See `RolloutWorker.turn`."""
        taken = await self._run(self._take(lambda: self._dialogue.after_prompt(messages), None))
        return taken.turn

    async def answer(self, messages: Sequence[ChatMessage], tools: Tools, max_tokens: int | None) -> RecordedTurn:
        """The next turn of a conversation that is given from its first message on, with its tools. `max_tokens` may
        lower what the recipe allows a turn.

        Raises:
            EpisodeClosed: the episode is over.
            PromptRefused: template or tokenizer cannot take the messages.
        """
        return await self._run(self._take(lambda: self._dialogue.whole(messages, tools), max_tokens))

    async def complete(self, tokens: NDArray[np.int32], max_tokens: int | None) -> RecordedTurn:
        """The next turn after a context [T] that is given as tokens; raises as `answer` does."""
        return await self._run(self._take(lambda: tokens, max_tokens))

    async def watch(self, start_s: float, step_s: float) -> EpisodeEnd:
        """Wait until an agent is to be ended: it has asked for nothing for so many seconds, before its first turn or
        after one (`environment_error`, `step_deadline`), or is not wanted any more (`aborted`).

        Raises:
            EpisodeClosed: the episode is over.
        """
        while not self._is_closed:
            if self.is_aborted:
                return EpisodeEnd.ABORTED
            left_s = self.used_at + (step_s if self._is_begun else start_s) - time.monotonic()
            if left_s <= 0 and not self._calls:
                return EpisodeEnd.STEP_DEADLINE if self._is_begun else EpisodeEnd.ENVIRONMENT_ERROR
            await asyncio.sleep(min(max(left_s, 0.01), LOOK_S))
        raise EpisodeClosed("the episode is over")

    def abort(self) -> None:
        """No further turn is sampled; what runs ends with what there is, once the engine ends it."""
        self.is_aborted = True

    def close(self) -> EpisodeRecord:
        """What was recorded. Calls that still run are ended, and can't record any more.

        Raises:
            WorkerError: the last turn that was asked for could not be sampled: an agent would be blamed for it.
        """
        self._is_closed = True
        for call in self._calls:
            call.cancel()
        if self._failure is not None:
            raise WorkerError(f"a turn could not be sampled: {self._failure}")
        return EpisodeRecord(
            prompt_token_ids=self._tree.prompt,
            prompt_text=self.prompt_text,
            completion=replace(self._tree.completion(self._last_text), end=self._end),
            messages=tuple(each for _, heard in sorted(self._heard, key=lambda turn: turn[0]) for each in heard),
            prompt_routed_experts=self._tree.prompt_routed_experts,
        )

    async def _run(self, work: Coroutine[Any, Any, RecordedTurn]) -> RecordedTurn:
        """A call that the episode's close ends."""
        if self._is_closed:
            work.close()
            raise EpisodeClosed("the episode is over")
        self.used_at, self._is_begun = time.monotonic(), True
        call = asyncio.ensure_future(work)
        self._calls.add(call)
        try:
            return await call
        except asyncio.CancelledError:
            if self._is_closed:
                raise EpisodeClosed("the episode was closed before this turn was done") from None
            raise
        finally:
            self._calls.discard(call)
            self.used_at = time.monotonic()

    async def _take(self, plan: Callable[[], NextTurn | NDArray[np.int32]], max_tokens: int | None) -> RecordedTurn:
        """One turn, from its context to its record."""
        began = time.monotonic()
        async with self._places:
            planned = plan()
            context = planned.tokens if isinstance(planned, NextTurn) else planned
            self._tree.check(context)
            limits = self._limits(context, max_tokens)
            if end := self._why_none(limits):
                self._end = end
                nothing = ChatMessage(role="assistant", content="")
                turn = SessionTurn(message=nothing, finish_reason="length", num_tokens=0, end=end)
                return RecordedTurn(turn=turn, context=context, completion=None)
            self._num_turns += 1
            sampling = replace(
                self.request.sampling,
                num_completions=1,
                max_tokens=min(limits.values()),
                seed=seed_after(self.request.sampling.seed, self._num_turns, 0),
            )
            made = await self._sampled(context, sampling)
        if self._is_closed:  # a call that came too late must not change what was handed out
            raise EpisodeClosed("the episode was closed before this turn was done")
        end = self._why_over(made, limits)
        tools = planned.after.tools if isinstance(planned, NextTurn) else self.request.tools
        message = self._parts.parser(tools).parse(self._as_text(context, made))
        if made.num_tokens:
            self._record(planned, context, made, message, began)
        self._end = end  # an agent that was cut off once, or had no room, may have found another way
        turn = SessionTurn(message=message, finish_reason=made.finish_reason, num_tokens=made.num_tokens, end=end)
        return RecordedTurn(turn=turn, context=context, completion=made)

    async def _sampled(self, context: NDArray[np.int32], sampling: Sampling) -> Completion:
        try:
            made = await self._parts.sample(self.request, context, sampling)
        except RayzeroError as error:
            self._failure = error
            raise
        self._failure = None
        return made

    def _limits(self, context: NDArray[np.int32], max_tokens: int | None) -> dict[str, int]:
        """Tokens that may be sampled now, by what bounds them."""
        limits = {"turn": self.request.sampling.max_tokens, "context": self._parts.max_model_tokens - len(context)}
        if max_tokens is not None:
            limits["caller"] = max_tokens
        if self.request.max_tokens is not None:
            observed = len(context) - self._tree.shared(context)
            limits["episode"] = self.request.max_tokens - self._tree.num_tokens - observed
        return limits

    def _why_none(self, limits: dict[str, int]) -> EpisodeEnd | None:
        request = self.request
        if self.is_aborted:
            return EpisodeEnd.ABORTED
        if request.max_turns is not None and self._num_turns >= request.max_turns:
            return EpisodeEnd.MAX_TURNS
        if request.max_tool_calls is not None and self._num_tool_calls >= request.max_tool_calls:
            return EpisodeEnd.MAX_TOOL_CALLS
        if limits["context"] < 1:
            return EpisodeEnd.CONTEXT
        return EpisodeEnd.MAX_TOKENS if min(limits.values()) < 1 else None

    def _why_over(self, made: Completion, limits: dict[str, int]) -> EpisodeEnd | None:
        if made.finish_reason == "abort" or (self.is_aborted and made.finish_reason != "stop"):
            return EpisodeEnd.ABORTED
        if made.finish_reason == "stop":
            return None
        bound = min(limits, key=lambda name: (limits[name], name != "context"))
        if bound == "caller":
            return None  # an agent that asked for little may go on elsewhere
        return EpisodeEnd.CONTEXT if bound == "context" else EpisodeEnd.MAX_TOKENS

    def _as_text(self, context: NDArray[np.int32], made: Completion) -> SampledText:
        tokens = made.token_ids[:-1] if made.finish_reason == "stop" else made.token_ids
        decode = self._parts.tokenizer.decode
        return SampledText(text=made.text, raw=decode(tokens.tolist()), opening=decode(context[-OPENING:].tolist()))

    def _record(
        self,
        planned: NextTurn | NDArray[np.int32],
        context: NDArray[np.int32],
        made: Completion,
        message: ChatMessage,
        began: float,
    ) -> None:
        is_whole = made.finish_reason == "stop"
        turn = SampledTurn(
            completion=made,
            tool_calls=message.tool_calls,
            is_over=not is_whole,
            began=began,
            ended=time.monotonic(),
        )
        place = self._tree.record(context, turn, self._why_forked(planned, context))
        new: tuple[ChatMessage, ...] = ()
        if isinstance(planned, NextTurn):
            new = planned.heard
            self._dialogue.said(planned, message, place, is_whole)
        self._heard.append((place[0], (*new, message)))
        self._num_tool_calls += len(message.tool_calls)
        self._last_text = made.text

    def _why_forked(self, planned: NextTurn | NDArray[np.int32], context: NDArray[np.int32]) -> str:
        """Why a context is no continuation of what is recorded, if it is none."""
        if isinstance(planned, NextTurn) and planned.reason == "cut_off":
            return planned.reason
        broken = self._tree.broken_turn(context)
        if broken is not None and self._parts.renderer.reads_alike(broken, context):
            return "drift"
        if isinstance(planned, NextTurn):
            return self._dialogue.why_forked(planned)
        shared = self._tree.shared(context)
        if shared < len(self._tree.prompt):
            return "prompt"
        return "parallel" if shared == len(context) else "rewritten"
