"""One vLLM engine as a rollout worker: groups in, completions out, new weights in between. Knows nothing of Ray."""

from __future__ import annotations

import asyncio
import logging
import time
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
from rayzero.rollout_workers.load_meter import LoadMeter
from rayzero.rollout_workers.running_requests import RunningRequests
from rayzero.rollout_workers.sampling import sampling_params
from rayzero.rollout_workers.stop_strings import cut_at_stop
from rayzero.rollout_workers.templates import render, room_after
from rayzero.services.schema.errors import RayzeroError, RecipeError, WorkerError
from rayzero.services.schema.messages import (
    Completion,
    GroupCompletions,
    GroupRequest,
    Rendezvous,
    RolloutStats,
    Sampling,
    WeightManifest,
    WeightReceipt,
)

logger = logging.getLogger(__name__)

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
        self._weights = WeightLoading(self._calls, spec.settings, self._load, self._requests, spec.policy_version)
        self._barrier: BatchBarrier[Any] = BatchBarrier(self._calls.held, min(deadline_s, BATCH_PATIENCE_S))

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
            label = self._calls.engine.update_weight_version(str(self.policy_version))
            await self._calls.in_time(label, "set the first version")
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
        salt = "" if request.batch is None else request.batch.batch_id
        with self._requests.group(request.group_id):
            completions = await self._sample(prompt, sampling, seed, request, salt)
            if self._settings.on_weights == "abort":
                resume = partial(self._resume, replace(request, sampling=sampling, batch=None), prompt)
                completions = await carry_on(completions, resume, self._tokenizer)
        if sampling.stop:
            completions = tuple(cut_at_stop(made, sampling.stop, self._tokenizer) for made in completions)
        return GroupCompletions(
            group_id=request.group_id,
            prompt_token_ids=prompt,
            prompt_text=text,
            completions=completions,
            worker=self.name,
            seconds=time.monotonic() - begun,
            load=self.stats(),
        )

    async def abort(self, group_id: int) -> None:
        """End a group's running completions with finish_reason `abort`; its `generate` returns what there is."""
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
        """Leave the GPU's memory to the learner: weights to the host, keys and values given up. Requests are held."""
        await self._calls.in_time(self._calls.ready().sleep(level=1, mode="keep"), "go to sleep")

    async def wake(self) -> None:
        """Take the memory again, and go on."""
        await self._calls.in_time(self._calls.ready().wake_up(), "wake up")

    def stats(self) -> RolloutStats:
        """How busy the engine is, as of its last step."""
        return self._load.stats(self.name, self.policy_version)

    async def shutdown(self) -> None:
        """End the engine and its processes; does nothing when they are gone already."""
        engine, self._calls.engine = self._calls.engine, None
        if engine is not None:
            if engine.output_handler is not None:
                engine.output_handler.cancel()  # it would take the end of the engine's process for a crash, and log one
            await asyncio.to_thread(engine_process.end, engine)
            engine_process.close_sockets(engine)

    async def _sample(
        self, prompt: NDArray[np.int32], sampling: Sampling, seed: int | None, request: GroupRequest, salt: str = ""
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
        with self._requests.request(request.group_id) as request_id:
            output = await self._complete(self._calls.ready(), prompt, params, request_id, salt, request)
        self._calls.ready()  # a load that failed meanwhile has aborted this request: its tokens come from no version
        return tuple(completion_of(part, self._tokenizer, self.policy_version) for part in output.outputs)

    async def _resume(
        self, request: GroupRequest, prompt: NDArray[np.int32], index: int, made: Completion
    ) -> Completion | None:
        """What the new weights add to a completion that they cut off; None for a group that is not wanted any more."""
        async with self._weights.lock:  # until they are loaded: what is computed before must not be found by others
            pass
        if self._requests.is_given_up(request.group_id):
            return None
        left = request.sampling.max_tokens - made.num_tokens
        sampling = replace(request.sampling, num_completions=1, max_tokens=left)
        seed = seed_after(request.sampling.seed, index, made.num_tokens)
        (rest,) = await self._sample(np.concatenate([prompt, made.token_ids]), sampling, seed, request)
        return rest

    async def _complete(
        self,
        engine: Any,
        prompt: NDArray[np.int32],
        params: Any,
        request_id: str,
        salt: str = "",
        group: GroupRequest | None = None,
    ) -> Any:
        """The finished output of one request; `salt` names who may share its cached prefix."""
        from vllm.inputs.engine import tokens_input

        # Salted with the version: a cached prefix can only be found by requests of the version that computed it.
        tokens = tokens_input(prompt.tolist(), cache_salt=f"version {self.policy_version} {salt}")
        batch, position = (None, 0) if group is None else (group.batch, group.group_id)
        collector: Any = None
        try:
            collector = await self._barrier.start(
                batch, position, lambda: engine.add_request(request_id, tokens, params)
            )
            if group is not None and self._requests.is_given_up(group.group_id):
                await engine.abort([request_id])  # it was given up before the engine knew of it
            while True:
                output = collector.get_nowait() or await collector.get()
                if output.finished:
                    return output
        except asyncio.CancelledError:
            if collector is not None:
                await engine.abort(collector.request_id, internal=True)
            raise
        except Exception as error:
            raise WorkerError(f"the engine of {self.name} failed: {error!r}") from None
