"""One vLLM engine as a rollout worker: groups in, completions out, new weights in between. Knows nothing of Ray."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.rollout_workers import engine_process
from rayzero.rollout_workers.batch_barrier import BatchBarrier
from rayzero.rollout_workers.broadcast.loading import WeightLoading
from rayzero.rollout_workers.completions import completion_of, eos_token_ids, spread_seed
from rayzero.rollout_workers.continuation import carry_on, seed_after
from rayzero.rollout_workers.engine_calls import EngineCalls
from rayzero.rollout_workers.episodes.endpoint import EpisodeEndpoint
from rayzero.rollout_workers.episodes.lockstep import Lockstep
from rayzero.rollout_workers.episodes.server import EndpointServer
from rayzero.rollout_workers.episodes.sessions import EpisodeSessions, place_of
from rayzero.rollout_workers.load_meter import LoadMeter
from rayzero.rollout_workers.routed_experts import RoutedExperts, without_prompt
from rayzero.rollout_workers.running_requests import RunningRequests
from rayzero.rollout_workers.sampling import sampling_params
from rayzero.rollout_workers.stop_strings import cut_at_stop
from rayzero.rollout_workers.templates import render, room_after
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord, EpisodeRequest, SessionTurn
from rayzero.services.schema.errors import RayzeroError, RecipeError, WorkerError
from rayzero.services.schema.messages import (
    ChatMessage,
    Completion,
    GroupCompletions,
    GroupRequest,
    RolloutStats,
    Sampling,
)
from rayzero.services.schema.weights import Rendezvous, WeightManifest, WeightReceipt

logger = logging.getLogger(__name__)

Start = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Hands a request to the engine when its turn has come; what the engine gives for it."""

BATCH_PATIENCE_S = 30.0
"""How long a batch waits to be whole: its groups are sent at one time, so one that is missing is lost."""


class RolloutEngine:
    """Start it once; then `generate` from many tasks, and bring in weights by join, receive, apply.

    Every method raises `WorkerError` when the engine is dead or holds half-loaded weights, and `DeadlineError` when it
    did not answer in time: both mean that the worker must be replaced.
    """

    def __init__(self, name: str, spec: engine_process.EngineSpec, *, deadline_s: float = 300.0) -> None:
        """`deadline_s` bounds every step of a weight transfer and every short call of the engine."""
        self.name = name
        self.start_seconds: dict[str, float] = {}
        """Where the start went: `imports`, `config`, `engine`."""
        self._spec, self._settings = spec, spec.settings
        self._tokenizer: Any = None
        self._stop_token_ids: list[int] = []
        self._load = LoadMeter()
        self._requests = RunningRequests()
        self._calls = EngineCalls(name, deadline_s)
        self._routing = RoutedExperts(self._calls, captured=spec.routing_replay and spec.device == "cpu")
        self._weights = WeightLoading(self._calls, spec.settings, self._load, self._requests, spec.policy_version)
        self._barrier: BatchBarrier[Any] = BatchBarrier(self._calls.held, min(deadline_s, BATCH_PATIENCE_S))
        self._lockstep = Lockstep(self._calls.held, deadline_s)
        self._episodes = EpisodeSessions(
            spec.settings, self._sample_turn, self._lockstep, lambda: self._weights.policy_version
        )
        self._endpoint = EndpointServer(EpisodeEndpoint(self._episodes, lambda: self._stop_token_ids))

    @property
    def policy_version(self) -> int:
        """The version that tokens are sampled from."""
        return self._weights.policy_version

    async def start(self) -> None:
        """Load the model and be ready to generate.

        Raises:
            WorkerError: the engine did not come up; the message holds the cause.
        """
        finish = engine_process.launch(self._spec, self._load)
        try:
            self._calls.engine, self._tokenizer, self.start_seconds = await asyncio.to_thread(finish)
            self._stop_token_ids = eos_token_ids(self._tokenizer, Path(self._spec.model_path))
            self._episodes.begin(self._tokenizer, self._stop_token_ids)
            label = self._calls.engine.update_weight_version(str(self.policy_version))
            await self._calls.in_time(label, "set the first version")
            await self._routing.begin()
        except RayzeroError:
            raise
        except Exception as error:
            raise WorkerError(f"the engine of {self.name} did not start: {error}") from None
        logger.info("%s is up: %s", self.name, self.start_seconds)

    async def generate(self, request: GroupRequest) -> GroupCompletions:
        """Sample all completions of one group, as one request of the engine.

        Raises:
            PromptRefused: the model's template cannot render the prompt, or it leaves no room for a completion.
        """
        begun = time.monotonic()
        self._calls.ready()
        try:
            text, prompt = render(request.prompt, self._settings, self._tokenizer)
            room = room_after(request.prompt, len(prompt), self._settings)
        except RecipeError:
            self._barrier.withdraw(request.batch)
            raise
        sampling = replace(request.sampling, max_tokens=min(request.sampling.max_tokens, room))
        seed = None if sampling.seed is None else spread_seed(sampling.seed)
        start = partial(self._barrier.start, request.batch, request.group_id)
        salt = "" if request.batch is None else request.batch.batch_id
        completions = await self._complete_all(request.group_id, prompt, sampling, seed, start, salt)
        if sampling.stop:
            completions = tuple(cut_at_stop(made, sampling.stop, self._tokenizer) for made in completions)
        experts, completions = without_prompt(completions, len(prompt))
        return GroupCompletions(
            group_id=request.group_id,
            prompt_token_ids=prompt,
            prompt_text=text,
            completions=completions,
            worker=self.name,
            seconds=time.monotonic() - begun,
            load=self.stats(),
            prompt_routed_experts=experts,
        )

    async def open_episode(self, request: EpisodeRequest) -> str:
        """Begin an episode; its session's id, which can't be guessed.

        Raises:
            PromptRefused: the model's template cannot render the prompt, or it leaves no room for a completion.
            RecipeError: the recipe's template or tool parser can't do episodes with this model.
        """
        self._calls.ready()
        return self._episodes.open(request)

    async def turn(self, session: str, messages: Sequence[ChatMessage]) -> SessionTurn:
        """Sample the next turn of a session after `messages`, all that follow the prompt.

        Raises:
            EpisodeClosed: there is no such session any more.
            PromptRefused: the model's template cannot render the messages.
        """
        self._calls.ready()
        return await self._episodes.find(session).turn(messages)

    async def close_episode(self, session: str) -> EpisodeRecord:
        """End an episode; the tokens that the engine was fed and returned.

        Raises:
            EpisodeClosed: there is no such session any more.
        """
        return self._episodes.close(session)

    async def serve_episodes(self) -> str:
        """Where agents of this machine find the endpoint of this engine's episodes, as `host:port`. An
        episode's base URL is `http://{host:port}/sessions/{session}/v1`."""
        return await self._endpoint.start("127.0.0.1")

    async def watch_episode(self, session: str, start_s: float, step_s: float) -> EpisodeEnd:
        """See `RolloutWorker.watch_episode`.

        Raises:
            EpisodeClosed: there is no such session any more.
        """
        return await self._episodes.find(session).watch(start_s, step_s)

    async def abort(self, group_id: int) -> None:
        """End a group's running completions with finish_reason `abort`; its `generate` returns what there is. So do the
        turns of its episodes, which take no further ones."""
        self._episodes.abort(group_id)
        if request_ids := self._requests.give_up(group_id):
            await self._calls.in_time(self._calls.ready().abort(request_ids), f"abort group {group_id}")

    async def logprobs(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """[T] log-probabilities of given tokens after [P] given ones, under the served weights, at temperature 1."""
        if len(token_ids) == 0:
            return np.zeros(0, dtype=np.float32)
        tokens = np.concatenate([prompt_token_ids, token_ids]).astype(np.int32)
        params = sampling_params(self._stop_token_ids, n=1, max_tokens=1, temperature=1.0, seed=None, prompt_logprobs=0)
        # A salt of its own: a proof of the weights must be computed with them, not found in the cache.
        number = self._requests.next_number()
        output = await self._complete(self._calls.ready(), tokens, params, f"score-{number}", salt=f"score {number}")
        # The flat form holds one entry a prompt token after the first, and none for the first.
        return np.asarray(output.prompt_logprobs.logprobs[-len(token_ids) :], dtype=np.float32)

    async def join_transfer(self, rendezvous: Rendezvous, rank: int) -> None:
        """See `WeightLoading.join`."""
        await self._weights.join(rendezvous, rank)

    async def receive_weights(self, manifest: WeightManifest) -> None:
        """See `WeightLoading.receive`."""
        await self._weights.receive(manifest)

    async def apply_weights(self, policy_version: int) -> WeightReceipt:
        """See `WeightLoading.apply`."""
        return await self._weights.apply(policy_version)

    async def sleep(self) -> None:
        """Leave the GPU's memory to the learner: keys and values are given up, and so are the weights where the next
        ones come whole; else they go to the host. Requests are held."""
        level = 2 if self._spec.weights_come_whole else 1
        await self._calls.in_time(self._calls.ready().sleep(level=level, mode="keep"), "go to sleep")

    async def wake(self) -> None:
        """Take the memory again, and go on; where the weights were given up, only when new ones are loaded."""
        tags = ["weights"] if self._spec.weights_come_whole else None
        await self._calls.in_time(self._calls.ready().wake_up(tags), "wake up")
        self._weights.cache_sleeps = self._spec.weights_come_whole

    def stats(self) -> RolloutStats:
        """How busy the engine is, as of its last step."""
        return self._load.stats(self.name, self.policy_version)

    async def shutdown(self) -> None:
        """End the engine and its processes; does nothing when they are gone already."""
        await self._endpoint.stop()
        engine, self._calls.engine = self._calls.engine, None
        if engine is not None:
            if engine.output_handler is not None:
                engine.output_handler.cancel()  # it would take the end of the engine's process for a crash, and log one
            await asyncio.to_thread(engine_process.end, engine)
            engine_process.close_sockets(engine)

    async def _sample_turn(self, request: EpisodeRequest, tokens: NDArray[np.int32], sampling: Sampling) -> Completion:
        """One turn of an episode after [T] tokens."""
        self._calls.ready()
        start = partial(self._lockstep.start, request.wave, place_of(request))
        salt = "" if request.wave is None else request.wave.batch_id
        (made,) = await self._complete_all(request.group_id, tokens, sampling, sampling.seed, start, salt)
        return made

    async def _complete_all(
        self, group_id: int, prompt: NDArray[np.int32], sampling: Sampling, seed: int | None, start: Start, salt: str
    ) -> tuple[Completion, ...]:
        """All completions of a prompt, each to its own end."""
        with self._requests.group(group_id):
            completions = await self._sample(group_id, prompt, sampling, seed, start, salt)
            if self._settings.on_weights == "abort":
                resume = partial(self._resume, group_id, sampling, prompt)
                completions = await carry_on(completions, resume, self._tokenizer)
        return completions

    async def _sample(
        self,
        group_id: int,
        prompt: NDArray[np.int32],
        sampling: Sampling,
        seed: int | None,
        start: Start | None = None,
        salt: str = "",
    ) -> tuple[Completion, ...]:
        """What one request of the engine gives."""
        params = sampling_params(
            self._stop_token_ids,
            n=sampling.num_completions,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=seed,
            logprobs=0,
        )
        with self._requests.request(group_id) as request_id:
            output = await self._complete(self._calls.ready(), prompt, params, request_id, salt, start, group_id)
        self._calls.ready()  # a load that failed meanwhile has aborted this request: its tokens come from no version
        return tuple(completion_of(part, self._tokenizer, self.policy_version) for part in output.outputs)

    async def _resume(
        self, group_id: int, sampling: Sampling, prompt: NDArray[np.int32], index: int, made: Completion
    ) -> Completion | None:
        """What the new weights add to a completion that they cut off; None for a group that is not wanted any more."""
        async with self._weights.lock:  # until they are loaded: what is computed before must not be found by others
            pass
        if self._requests.is_given_up(group_id):
            return None
        seed = seed_after(sampling.seed, index, made.num_tokens)
        left = replace(sampling, num_completions=1, max_tokens=sampling.max_tokens - made.num_tokens)
        (rest,) = await self._sample(group_id, np.concatenate([prompt, made.token_ids]), left, seed)
        return rest

    async def _complete(
        self,
        engine: Any,
        prompt: NDArray[np.int32],
        params: Any,
        request_id: str,
        salt: str = "",
        start: Start | None = None,
        group_id: int | None = None,
    ) -> Any:
        """The finished output of one request; `salt` names who may share its cached prefix."""
        from vllm.inputs.engine import tokens_input

        # Salted with the version: a cached prefix can only be found by requests of the version that computed it.
        tokens = tokens_input(prompt.tolist(), cache_salt=f"version {self.policy_version} {salt}")
        collector: Any = None
        try:

            async def submit() -> Any:
                return await engine.add_request(request_id, tokens, params)

            collector = await (submit() if start is None else start(submit))
            if group_id is not None and self._requests.is_given_up(group_id):
                await engine.abort([request_id])  # it was given up before the engine knew of it
            with self._routing.awaited(collector.request_id, params.n):
                while not (output := collector.get_nowait() or await collector.get()).finished:
                    pass
                await self._routing.put_into(output.outputs, collector.request_id)
            return output
        except asyncio.CancelledError:
            if collector is not None:
                await engine.abort(collector.request_id, internal=True)
            raise
        except Exception as error:
            raise WorkerError(f"the engine of {self.name} failed: {error!r}") from None
