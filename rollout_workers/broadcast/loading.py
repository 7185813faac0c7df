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
from rayzero.services.schema.errors import DeadlineError, TransferLost, WeightSyncError
from rayzero.services.schema.weights import Rendezvous, WeightManifest, WeightReceipt

PAUSE_MODES: dict[str, tuple[str, bool]] = {
    "keep_recompute": ("keep", True),
    "keep_stale": ("keep", False),
    "abort": ("abort", True),
}
"""`rollout.on_weights` -> vLLM's pause mode, and whether keys and values are dropped."""

FIRST_POLL_S, LAST_POLL_S = 0.001, 0.005
"""How often a transfer that runs in the engine's thread is asked whether it is done."""

STREAM_GRACE_S = 2.0
"""What an engine that loads a broadcast as it comes is given beyond its own deadline: it knows what went wrong."""


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
        self.cache_sleeps = False
        """Whether the engine's memory for keys and values is still given up: it wakes when it has weights again."""
        self._paused_at: float | None = None
        """Since when the engine stands still, on the monotonic clock; None: it does not."""
        self._streaming = False
        """Whether vLLM's phase of loading has begun with a broadcast that is loaded as it comes."""

    async def join(self, rendezvous: Rendezvous, rank: int) -> None:
        """Meet the learner and the other receivers; a group joined before is left. Returns once all are there."""
        init_info = {
            "host": rendezvous.host,
            "port": rendezvous.port,
            "world_size": rendezvous.world_size,
            "rank": rank,
            "deadline_s": self._calls.deadline_s,
            "num_bytes": 0 if self._settings.loads_in_pause else rendezvous.num_bytes,
            "secret": rendezvous.secret,
        }
        await asyncio.to_thread(self._client().init_weight_transfer_engine, init_info)
        await self._transferred("join the transfer group")

    async def receive(self, manifest: WeightManifest) -> None:
        """Take one broadcast into the staging buffer and hold it against the manifest, while generation goes on. An
        engine that has no room for that is paused first, and loads each bucket as it comes.

        Raises:
            WeightSyncError: the broadcast did not come, or is not what the manifest says. An engine that stages goes on
                with its old weights; one that does not stands still until it has taken a whole broadcast.
        """
        if self._settings.loads_in_pause and manifest.streamed and manifest.adapter_scaling is None:
            await self._stream(manifest)
            return
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
        if self._paused_at is None:
            await self._pause()
        try:
            await asyncio.to_thread(self._load_weights, self._client(), policy_version)
            num_tensors = await self._prove(policy_version)
        except BaseException as error:  # a cancelled load is half a load, too
            await self._break(error)
            raise
        self._streaming = False
        self.policy_version = policy_version
        pause_s = await self._resume()
        return WeightReceipt(
            worker=self._calls.name,
            policy_version=policy_version,
            num_tensors=num_tensors,
            receive_s=self._receive_s,
            pause_s=pause_s,
        )

    async def _stream(self, manifest: WeightManifest) -> None:
        """Pause and load a broadcast as it comes. When it breaks off the engine waits, paused, to be sent it again."""
        if self._paused_at is None:
            await self._pause()
        begun = time.monotonic()
        try:
            if not self._streaming:
                call = self._calls.ready().collective_rpc("begin_stream")
                await self._calls.in_time(call, "begin to load weights as they come")
                await asyncio.to_thread(self._client().start_weight_update)
                self._streaming = True
            update = {
                "policy_version": manifest.policy_version,
                "manifest": manifest_text(manifest),
                "deadline_s": self._calls.deadline_s,
            }
            await asyncio.to_thread(self._client(STREAM_GRACE_S).update_weights, update)
            await self._transferred(f"load version {manifest.policy_version}")
        except WeightSyncError:
            raise
        except BaseException as error:
            await self._break(error)
            raise
        self._receive_s = time.monotonic() - begun

    async def _pause(self) -> None:
        await self.lock.acquire()
        try:
            mode, clear_cache = PAUSE_MODES[self._settings.on_weights]
            # Not `pause_generation`: it ends with a sleep of 20 ms that only makes logs read better.
            pause = self._calls.ready().engine_core.pause_scheduler_async(mode=mode, clear_cache=clear_cache)
            await self._calls.in_time(pause, "pause the engine")
        except BaseException:
            self.lock.release()
            raise
        self._paused_at = time.monotonic()  # until now the engine was still at its last step

    async def _resume(self) -> float:
        """Generate again; for how many seconds the engine did not."""
        assert self._paused_at is not None
        mode, clear_cache = PAUSE_MODES[self._settings.on_weights]
        try:
            if clear_cache:
                self._load.on_new_weights(preempted=mode == "keep")
            if self.cache_sleeps:
                await self._calls.in_time(self._calls.ready().wake_up(["kv_cache"]), "wake up")
                self.cache_sleeps = False
            await self._calls.in_time(self._calls.ready().resume_generation(), "resume the engine")
            return time.monotonic() - self._paused_at
        finally:
            self._paused_at = None
            self.lock.release()

    def _client(self, grace_s: float = 0.0) -> DeadlineWeightSyncClient:
        return DeadlineWeightSyncClient(
            self._calls.ready(), asyncio.get_running_loop(), self._calls.deadline_s + grace_s, self._calls.name
        )

    async def _transferred(self, what: str) -> None:
        """Wait until the thread in the engine's process is done with what it was told to do."""
        give_up = time.monotonic() + self._calls.deadline_s + 1.0  # the thread has the same deadline and knows more
        pause_s = FIRST_POLL_S
        while True:
            states = await self._calls.in_time(self._calls.ready().collective_rpc("transfer_status"), what)
            if failed := [state for state in states if state["error"]]:
                own = [state for state in failed if not state["lost"]]  # it broke the transfer for the others
                kind = WeightSyncError if own else TransferLost
                raise kind(f"{self._calls.name} could not {what}: {(own or failed)[0]['error']}")
            if not any(state["busy"] for state in states):
                return
            if time.monotonic() > give_up:
                raise DeadlineError(f"{self._calls.name} waited {self._calls.deadline_s:g} s to {what}")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_POLL_S)

    def _load_weights(self, client: DeadlineWeightSyncClient, policy_version: int) -> None:
        """vLLM's phases two to four, or the last where the others are done; in a thread, since the protocol blocks."""
        if not self._streaming:
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
        if self._paused_at is not None:
            self._paused_at = None
            self.lock.release()
        running = self._requests.all()
        if running and not self._calls.engine.errored:
            await self._calls.in_time(self._calls.engine.abort(running), "abort what is running")
