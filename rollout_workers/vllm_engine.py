"""One vLLM engine as a rollout worker: groups in, completions out, new weights in between. Knows nothing of Ray."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rollout_workers import engine_process
from rollout_workers.completions import completion_of, eos_token_ids, spread_seed
from rollout_workers.continuation import carry_on, seed_after
from rollout_workers.load_meter import LoadMeter
from rollout_workers.running_requests import RunningRequests
from rollout_workers.sampling import sampling_params
from rollout_workers.start_gate import StartGate
from rollout_workers.templates import render
from rollout_workers.weight_client import DeadlineWeightSyncClient
from services.schema.errors import DeadlineError, RayzeroError, RecipeError, WeightSyncError, WorkerError
from services.schema.messages import (
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

T = TypeVar("T")

PAUSE_MODES: dict[str, tuple[str, bool]] = {
    "keep_recompute": ("keep", True),
    "keep_stale": ("keep", False),
    "abort": ("abort", True),
}
"""`rollout.on_weights` -> vLLM's pause mode, and whether keys and values are dropped."""

DEATH_POLL_S = 0.25
"""How often it is looked after an engine that has not answered yet."""

FIRST_POLL_S, LAST_POLL_S = 0.001, 0.005
"""How often a transfer that runs in the engine's thread is asked whether it is done."""

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
        self.policy_version = spec.policy_version
        """The version that tokens are sampled from."""
        self.start_seconds: dict[str, float] = {}
        """Where the start went: `imports`, `config`, `engine`."""
        self._spec, self._settings, self._deadline_s = spec, spec.settings, deadline_s
        self._engine: Any = None
        self._tokenizer: Any = None
        self._stop_token_ids: list[int] = []
        self._load = LoadMeter()
        self._requests = RunningRequests()
        self._broken: BaseException | None = None
        self._sync_lock = asyncio.Lock()
        self._receive_s = 0.0
        self._gate: StartGate[Any] = StartGate(self.held, min(deadline_s, BATCH_PATIENCE_S))

    async def start(self) -> None:
        """Load the model and be ready to generate.

        Raises:
            WorkerError: the engine did not come up; the message holds the cause.
        """
        finish = engine_process.launch(self._spec, self._load)
        try:
            self._engine, self._tokenizer, self.start_seconds = await asyncio.to_thread(finish)
            self._stop_token_ids = eos_token_ids(self._tokenizer, Path(self._spec.model_path))
            await self._in_time(self._engine.update_weight_version(str(self.policy_version)), "set the first version")
        except RayzeroError:
            raise
        except Exception as error:
            raise WorkerError(f"the engine of {self.name} did not start: {error}") from None
        logger.info("%s is up: %s", self.name, self.start_seconds)

    async def generate(self, request: GroupRequest) -> GroupCompletions:
        """Sample all completions of one group, as one request of the engine.

        Raises:
            RecipeError: the prompt leaves no room for a completion.
        """
        begun = time.monotonic()
        self._ready()
        text, prompt = render(request.prompt, self._settings.prompt_template, self._tokenizer)
        room = self._settings.max_model_tokens - len(prompt)
        if room < 1:
            self._gate.withdraw(request.batch)
            raise RecipeError(
                f"prompt {request.prompt.prompt_id} has {len(prompt)} tokens, rollout.max_model_tokens is "
                f"{self._settings.max_model_tokens}: raise it or drop the prompt"
            )
        sampling = replace(request.sampling, max_tokens=min(request.sampling.max_tokens, room))
        seed = None if sampling.seed is None else spread_seed(sampling.seed)
        salt = "" if request.batch is None else request.batch.batch_id
        with self._requests.group(request.group_id):
            completions = await self._sample(prompt, sampling, seed, request, salt)
            if self._settings.on_weights == "abort":
                resume = partial(self._resume, replace(request, sampling=sampling, batch=None), prompt)
                completions = await carry_on(completions, resume, self._tokenizer)
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
            await self._in_time(self._ready().abort(request_ids), f"abort group {group_id}")

    async def logprobs(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """[T] log-probabilities of given tokens after [P] given ones, under the served weights, at temperature 1."""
        if len(token_ids) == 0:
            return np.zeros(0, dtype=np.float32)
        tokens = np.concatenate([prompt_token_ids, token_ids]).astype(np.int32)
        params = sampling_params(self._stop_token_ids, n=1, max_tokens=1, temperature=1.0, seed=None, prompt_logprobs=0)
        # A salt of its own: a proof of the weights must be computed with them, not found in the cache.
        number = self._requests.next_number()
        output = await self._complete(self._ready(), tokens, params, f"score-{number}", salt=f"score {number}")
        # The flat form holds one entry a prompt token after the first, and none for the first.
        return np.asarray(output.prompt_logprobs.logprobs[-len(token_ids) :], dtype=np.float32)

    async def join_transfer(self, rendezvous: Rendezvous, rank: int) -> None:
        """Meet the learner and the other receivers; a group joined before is left. Returns once all are there."""
        init_info = {
            "host": rendezvous.host,
            "port": rendezvous.port,
            "world_size": rendezvous.world_size,
            "rank": rank,
            "deadline_s": self._deadline_s,
        }
        await asyncio.to_thread(self._client().init_weight_transfer_engine, init_info)
        await self._transferred("join the transfer group")

    async def receive_weights(self, manifest: WeightManifest) -> None:
        """Take one broadcast into the staging buffer and hold it against the manifest, while generation goes on.

        Raises:
            WeightSyncError: the broadcast did not come, or is not what the manifest says. Nothing was loaded: the
                engine goes on with its old weights.
        """
        begun = time.monotonic()
        # Two NCCL groups at work on one GPU may wait for each other across GPUs: no step of a tensor-parallel engine
        # runs beside a broadcast.
        async with self.held() if self._settings.tensor_parallel_size > 1 else nullcontext():
            call = self._ready().collective_rpc("begin_receive", args=(pickle.dumps(manifest), self._deadline_s))
            await self._in_time(call, "begin to receive weights")
            await self._transferred(f"receive version {manifest.policy_version}")
        self._receive_s = time.monotonic() - begun

    async def apply_weights(self, policy_version: int) -> WeightReceipt:
        """Pause, load what was received, resume; every token from here on is of `policy_version`.

        Raises:
            WeightSyncError: the engine does not serve the version. It may hold a mixture of two, so it serves no more.
        """
        engine = self._ready()
        async with self._sync_lock:
            mode, clear_cache = PAUSE_MODES[self._settings.on_weights]
            # Not `pause_generation`: it ends with a sleep of 20 ms that only makes logs read better.
            pause = engine.engine_core.pause_scheduler_async(mode=mode, clear_cache=clear_cache)
            await self._in_time(pause, "pause the engine")
            paused = time.monotonic()  # until now the engine was still at its last step
            try:
                await asyncio.to_thread(self._load_weights, self._client(), policy_version)
                num_tensors = await self._prove(policy_version)
            except BaseException as error:  # a cancelled load is half a load, too
                await self._break(error)
                raise
            self.policy_version = policy_version
            if clear_cache:
                self._load.on_new_weights(preempted=mode == "keep")
            await self._in_time(engine.resume_generation(), "resume the engine")
            pause_s = time.monotonic() - paused
        return WeightReceipt(
            worker=self.name,
            policy_version=policy_version,
            num_tensors=num_tensors,
            receive_s=self._receive_s,
            pause_s=pause_s,
        )

    async def sleep(self) -> None:
        """Leave the GPU's memory to the learner: weights to the host, keys and values given up. Requests are held."""
        await self._in_time(self._ready().sleep(level=1, mode="keep"), "go to sleep")

    async def wake(self) -> None:
        """Take the memory again, and go on."""
        await self._in_time(self._ready().wake_up(), "wake up")

    async def leave_transfer(self) -> None:
        """Hang up. The group cannot be used without this worker: the others must meet anew."""
        await self._in_time(self._ready().shutdown_weight_transfer_engine(), "leave the transfer group")

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Take requests in without starting them: a batch that starts as a whole is computed the same way each time."""
        engine = self._ready()
        pause = engine.engine_core.pause_scheduler_async(mode="keep", clear_cache=False)
        await self._in_time(pause, "hold the engine")
        try:
            yield
        finally:
            await self._in_time(engine.resume_generation(), "release the engine")

    async def drain(self, deadline_s: float) -> None:
        """Wait until nothing is running. New requests are the caller's to hold back."""
        try:
            async with asyncio.timeout(deadline_s):
                while self._ready().get_num_unfinished_requests():
                    await asyncio.sleep(LAST_POLL_S)
        except TimeoutError:
            raise DeadlineError(f"{self.name} was not drained in {deadline_s:g} s") from None

    def stats(self) -> RolloutStats:
        """How busy the engine is, as of its last step."""
        return self._load.stats(self.name, self.policy_version)

    async def shutdown(self) -> None:
        """End the engine and its processes; does nothing when they are gone already."""
        engine, self._engine = self._engine, None
        if engine is not None:
            if engine.output_handler is not None:
                engine.output_handler.cancel()  # it would take the end of the engine's process for a crash, and log one
            await asyncio.to_thread(engine_process.end, engine)
            engine_process.close_sockets(engine)

    def _ready(self) -> Any:
        if self._broken is not None:
            raise WorkerError(f"{self.name} cannot be trusted since its weights were not loaded: {self._broken!r}")
        if self._engine is None:
            raise WorkerError(f"the engine of {self.name} is not running")
        if self._engine.errored:
            raise WorkerError(f"the engine of {self.name} has died; its log has the cause")
        return self._engine

    async def _sample(
        self, prompt: NDArray[np.int32], sampling: Sampling, seed: int | None, request: GroupRequest, salt: str = ""
    ) -> tuple[Completion, ...]:
        """What one request of the engine gives."""
        params = sampling_params(
            self._stop_token_ids,
            n=sampling.num_completions,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=seed,
            logprobs=0,
        )
        with self._requests.request(request.group_id) as request_id:
            output = await self._complete(self._ready(), prompt, params, request_id, salt, request)
        self._ready()  # a load that failed meanwhile has aborted this request: its tokens are nobody's policy
        return tuple(completion_of(part, self._tokenizer, self.policy_version) for part in output.outputs)

    async def _resume(
        self, request: GroupRequest, prompt: NDArray[np.int32], index: int, made: Completion
    ) -> Completion | None:
        """What the new weights add to a completion that they cut off; None for a group that is not wanted any more."""
        async with self._sync_lock:  # until they are loaded: what is computed before must not be found by others
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
            collector = await self._gate.start(batch, position, lambda: engine.add_request(request_id, tokens, params))
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

    def _client(self) -> DeadlineWeightSyncClient:
        return DeadlineWeightSyncClient(self._ready(), asyncio.get_running_loop(), self._deadline_s, self.name)

    async def _transferred(self, what: str) -> None:
        """Wait until the thread in the engine's process is done with what it was told to do."""
        give_up = time.monotonic() + self._deadline_s + 1.0  # the thread has the same deadline and knows more
        pause_s = FIRST_POLL_S
        while True:
            states = await self._in_time(self._ready().collective_rpc("transfer_status"), what)
            if errors := [state["error"] for state in states if state["error"]]:
                raise WeightSyncError(f"{self.name} could not {what}: {errors[0]}")
            if not any(state["busy"] for state in states):
                return
            if time.monotonic() > give_up:
                raise DeadlineError(f"{self.name} waited {self._deadline_s:g} s to {what}")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_POLL_S)

    def _load_weights(self, client: DeadlineWeightSyncClient, policy_version: int) -> None:
        """vLLM's phases two to four; in a thread, since the protocol blocks."""
        client.start_weight_update()
        client.update_weights({"policy_version": policy_version})
        client.finish_weight_update(str(policy_version))

    async def _prove(self, policy_version: int) -> int:
        """Ask the engine itself, all of its workers and its scheduler, what it serves."""
        states = await self._in_time(self._ready().collective_rpc("transfer_status"), "prove its version")
        label = await self._in_time(self._ready().get_weight_version(), "prove its version")
        loaded = {state["loaded_version"] for state in states}
        if loaded != {policy_version} or label != str(policy_version):
            raise WeightSyncError(
                f"{self.name} should serve version {policy_version}, but has finished loading "
                f"{sorted(map(str, loaded))} and labels its tokens {label}"
            )
        return int(states[0]["num_tensors"])

    async def _break(self, error: BaseException) -> None:
        self._broken = error
        running = self._requests.all()
        if running and not self._engine.errored:
            await self._in_time(self._engine.abort(running), "abort what is running")

    async def _in_time(self, call: Awaitable[T], what: str) -> T:
        """The answer of the engine; not waited for any longer than the engine lives: vLLM leaves such calls open."""
        answer = asyncio.ensure_future(call)
        try:
            async with asyncio.timeout(self._deadline_s):
                while not answer.done():
                    await asyncio.wait([answer], timeout=DEATH_POLL_S)
                    if not answer.done() and self._engine is not None and self._engine.errored:
                        raise WorkerError(f"the engine of {self.name} died and could not {what}")
                return answer.result()
        except TimeoutError:
            raise DeadlineError(f"the engine of {self.name} did not {what} in {self._deadline_s:g} s") from None
        except RayzeroError:
            raise
        except Exception as error:
            raise WorkerError(f"the engine of {self.name} could not {what}: {error!r}") from None
        finally:
            answer.cancel()
