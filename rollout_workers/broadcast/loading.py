"""How one engine takes in new weights: join, receive beside generation, apply in a pause, prove."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext

from rayzero.rollout_workers.broadcast.client import DeadlineWeightSyncClient
from rayzero.rollout_workers.engine_calls import EngineCalls
from rayzero.rollout_workers.load_meter import LoadMeter
from rayzero.rollout_workers.running_requests import RunningRequests
from rayzero.services.schema.broadcast.manifest import manifest_text
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.errors import DeadlineError, WeightSyncError
from rayzero.services.schema.messages import Rendezvous, WeightManifest, WeightReceipt

PAUSE_MODES: dict[str, tuple[str, bool]] = {
    "keep_recompute": ("keep", True),
    "keep_stale": ("keep", False),
    "abort": ("abort", True),
}
"""`rollout.on_weights` -> vLLM's pause mode, and whether keys and values are dropped."""

FIRST_POLL_S, LAST_POLL_S = 0.001, 0.005
"""How often a transfer that runs in the engine's thread is asked whether it is done."""


class WeightLoading:
    """The worker's half of a broadcast; services/loop/weight_sync.py conducts it."""

    def __init__(
        self,
        calls: EngineCalls,
        settings: RolloutSettings,
        load: LoadMeter,
        requests: RunningRequests,
        policy_version: int,
    ) -> None:
        """`load` counts running completions that are computed anew, `requests` ends them when a load has failed."""
        self.policy_version = policy_version
        """The version that tokens are sampled from."""
        self.lock = asyncio.Lock()
        """Held from the pause to the end of it."""
        self._calls, self._settings, self._load, self._requests = calls, settings, load, requests
        self._receive_s = 0.0

    async def join(self, rendezvous: Rendezvous, rank: int) -> None:
        """Meet the learner and the other receivers; a group joined before is left. Returns once all are there."""
        init_info = {
            "host": rendezvous.host,
            "port": rendezvous.port,
            "world_size": rendezvous.world_size,
            "rank": rank,
            "deadline_s": self._calls.deadline_s,
            "num_bytes": rendezvous.num_bytes,
            "secret": rendezvous.secret,
        }
        await asyncio.to_thread(self._client().init_weight_transfer_engine, init_info)
        await self._transferred("join the transfer group")

    async def receive(self, manifest: WeightManifest) -> None:
        """Take one broadcast into the staging buffer and hold it against the manifest, while generation goes on.

        Raises:
            WeightSyncError: the broadcast did not come, or is not what the manifest says. Nothing was loaded: the
                engine goes on with its old weights.
        """
        begun = time.monotonic()
        # Two NCCL groups at work on one GPU may wait for each other across GPUs: no step of a tensor-parallel engine
        # runs beside a broadcast.
        async with self._calls.held() if self._settings.tensor_parallel_size > 1 else nullcontext():
            call = self._calls.ready().collective_rpc(
                "begin_receive", args=(manifest_text(manifest), self._calls.deadline_s)
            )
            await self._calls.in_time(call, "begin to receive weights")
            await self._transferred(f"receive version {manifest.policy_version}")
        self._receive_s = time.monotonic() - begun

    async def apply(self, policy_version: int) -> WeightReceipt:
        """Pause, load what was received, resume; every token from here on is of `policy_version`.

        Raises:
            WeightSyncError: the engine does not serve the version. It may hold a mixture of two, so it serves no more.
        """
        engine = self._calls.ready()
        async with self.lock:
            mode, clear_cache = PAUSE_MODES[self._settings.on_weights]
            # Not `pause_generation`: it ends with a sleep of 20 ms that only makes logs read better.
            pause = engine.engine_core.pause_scheduler_async(mode=mode, clear_cache=clear_cache)
            await self._calls.in_time(pause, "pause the engine")
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
            await self._calls.in_time(engine.resume_generation(), "resume the engine")
            pause_s = time.monotonic() - paused
        return WeightReceipt(
            worker=self._calls.name,
            policy_version=policy_version,
            num_tensors=num_tensors,
            receive_s=self._receive_s,
            pause_s=pause_s,
        )

    def _client(self) -> DeadlineWeightSyncClient:
        return DeadlineWeightSyncClient(
            self._calls.ready(), asyncio.get_running_loop(), self._calls.deadline_s, self._calls.name
        )

    async def _transferred(self, what: str) -> None:
        """Wait until the thread in the engine's process is done with what it was told to do."""
        give_up = time.monotonic() + self._calls.deadline_s + 1.0  # the thread has the same deadline and knows more
        pause_s = FIRST_POLL_S
        while True:
            states = await self._calls.in_time(self._calls.ready().collective_rpc("transfer_status"), what)
            if errors := [state["error"] for state in states if state["error"]]:
                raise WeightSyncError(f"{self._calls.name} could not {what}: {errors[0]}")
            if not any(state["busy"] for state in states):
                return
            if time.monotonic() > give_up:
                raise DeadlineError(f"{self._calls.name} waited {self._calls.deadline_s:g} s to {what}")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_POLL_S)

    def _load_weights(self, client: DeadlineWeightSyncClient, policy_version: int) -> None:
        """vLLM's phases two to four; in a thread, since the protocol blocks."""
        client.start_weight_update()
        client.update_weights({"policy_version": policy_version})
        client.finish_weight_update(str(policy_version))

    async def _prove(self, policy_version: int) -> int:
        """Ask the engine itself, all of its workers and its scheduler, what it serves."""
        states = await self._calls.in_time(self._calls.ready().collective_rpc("transfer_status"), "prove its version")
        label = await self._calls.in_time(self._calls.ready().get_weight_version(), "prove its version")
        loaded = {state["loaded_version"] for state in states}
        if loaded != {policy_version} or label != str(policy_version):
            raise WeightSyncError(
                f"{self._calls.name} should serve version {policy_version}, but has finished loading "
                f"{sorted(map(str, loaded))} and labels its tokens {label}"
            )
        return int(states[0]["num_tensors"])

    async def _break(self, error: BaseException) -> None:
        self._calls.broken = error
        running = self._requests.all()
        if running and not self._calls.engine.errored:
            await self._calls.in_time(self._calls.engine.abort(running), "abort what is running")
