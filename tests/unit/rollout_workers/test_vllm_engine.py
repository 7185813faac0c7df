"""What the worker does around its engine: order of events, deadlines, and what it no longer serves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rayzero.rollout_workers.engine_process import EngineSpec, engine_arguments
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.errors import DeadlineError, WeightSyncError, WorkerError
from rayzero.services.schema.weights import Rendezvous, TensorSpec, WeightManifest

SPEC = EngineSpec(model_path="model", dtype="float32", settings=RolloutSettings(device="cpu"))
MANIFEST = WeightManifest(
    policy_version=5,
    tensors=(TensorSpec(name="w", dtype="float32", shape=(1,), bucket=0, offset_bytes=0, num_bytes=4, checksum="00"),),
    bucket_bytes=(64,),
)


class FakeCore:
    """The scheduler's side of an engine."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    async def pause_scheduler_async(self, mode: str, clear_cache: bool) -> None:
        self.events.append(f"pause {mode} {clear_cache}")


class FakeAsyncLLM:
    """Scripted: loads what it is asked to, unless it `forgets`."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.engine_core = FakeCore(self.events)
        self.errored = False
        self.label = "0"
        self.state: dict[str, Any] = {
            "busy": False, "error": None, "lost": False, "loaded_version": None, "num_tensors": 1
        }  # fmt: skip
        self.forgets: str = ""
        self.hangs_in: str = ""
        self.polls_until_done = 2

    async def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> list[Any]:
        if method == self.hangs_in:
            await asyncio.sleep(60)
        if method == "transfer_status":
            self.polls_until_done -= 1
            return [self.state | {"busy": self.polls_until_done > 0}]
        self.events.append(method)
        if method == "update_weights":
            self.loading = (kwargs or {})["update_info"]["policy_version"]
        if method == "finish_weight_update" and self.forgets != method:
            self.state["loaded_version"] = self.loading
        return [None]

    async def update_weight_version(self, new_version: str) -> None:
        self.events.append(f"label {new_version}")
        if self.forgets != "label":
            self.label = new_version

    async def get_weight_version(self) -> str:
        return self.label

    async def resume_generation(self) -> None:
        self.events.append("resume")

    async def abort(self, request_ids: list[str]) -> None:
        self.events.append(f"abort {request_ids}")

    def get_num_unfinished_requests(self) -> int:
        return 1


def worker(engine: FakeAsyncLLM, settings: RolloutSettings = SPEC.settings, deadline_s: float = 5.0) -> RolloutEngine:
    made = RolloutEngine(
        "rollout-0", EngineSpec(model_path="m", dtype="float32", settings=settings), deadline_s=deadline_s
    )
    made._calls.engine = engine
    return made


async def test_weights_are_loaded_between_pause_and_resume() -> None:
    engine = FakeAsyncLLM()
    made = worker(engine)
    receipt = await made.apply_weights(5)
    assert engine.events == [
        "pause keep False",
        "start_weight_update",
        "update_weights",
        "finish_weight_update",
        "label 5",
        "resume",
    ]
    assert (receipt.worker, receipt.policy_version, receipt.num_tensors) == ("rollout-0", 5, 1)
    assert made.policy_version == 5


@pytest.mark.parametrize(
    ("on_weights", "pause"),
    [("keep_recompute", "pause keep True"), ("keep_stale", "pause keep False"), ("abort", "pause abort True")],
)
async def test_recipe_says_what_becomes_of_running_completions(on_weights: str, pause: str) -> None:
    engine = FakeAsyncLLM()
    await worker(engine, RolloutSettings.model_validate({"on_weights": on_weights})).apply_weights(1)
    assert engine.events[0] == pause


@pytest.mark.parametrize("forgets", ["finish_weight_update", "label"])
async def test_engine_that_cannot_prove_its_version_serves_no_more(forgets: str) -> None:
    engine = FakeAsyncLLM()
    engine.forgets = forgets
    made = worker(engine)
    with (
        made._requests.group(3),
        made._requests.request(3),
        pytest.raises(WeightSyncError, match="rollout-0 should serve version 5"),
    ):
        await made.apply_weights(5)
    assert made.policy_version == 0
    assert "resume" not in engine.events, "half a load must not sample a token"
    assert engine.events[-1] == "abort ['3-0']"
    with pytest.raises(WorkerError, match="cannot be trusted"):
        await made.apply_weights(6)


async def test_hanging_load_ends_at_the_deadline() -> None:
    engine = FakeAsyncLLM()
    engine.hangs_in = "update_weights"
    made = worker(engine, deadline_s=0.1)
    with pytest.raises(DeadlineError, match="update_weights of the engine of rollout-0"):
        await made.apply_weights(5)
    with pytest.raises(WorkerError, match="cannot be trusted"):
        made._calls.ready()


async def test_cancelled_load_leaves_the_engine_untrusted() -> None:
    engine = FakeAsyncLLM()
    engine.hangs_in = "update_weights"
    made = worker(engine)
    applying = asyncio.create_task(made.apply_weights(5))
    while "start_weight_update" not in engine.events:
        await asyncio.sleep(0.01)
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying
    with pytest.raises(WorkerError, match="cannot be trusted"):
        made._calls.ready()


async def test_receiving_waits_for_the_engines_thread() -> None:
    engine = FakeAsyncLLM()
    engine.polls_until_done = 4
    await worker(engine).receive_weights(MANIFEST)
    assert engine.events == ["begin_receive"]
    assert engine.polls_until_done == 0


async def test_what_the_engines_thread_found_is_raised_with_the_workers_name() -> None:
    engine = FakeAsyncLLM()
    engine.polls_until_done = 0
    engine.state["error"] = "bytes differ from what the learner announced: w"
    with pytest.raises(WeightSyncError, match=r"rollout-0 could not receive version 5: bytes differ.*: w$"):
        await worker(engine).receive_weights(MANIFEST)
    with pytest.raises(WeightSyncError, match="rollout-0 could not join the transfer group"):
        await worker(engine).join_transfer(Rendezvous(host="127.0.0.1", port=1, world_size=2), 1)


async def test_engine_that_does_not_answer_is_a_deadline_error() -> None:
    engine = FakeAsyncLLM()
    engine.hangs_in = "begin_receive"
    with pytest.raises(DeadlineError, match=r"rollout-0 did not begin to receive weights in 0.1 s"):
        await worker(engine, deadline_s=0.1).receive_weights(MANIFEST)


async def test_dead_engine_and_engine_that_is_not_running_are_worker_errors() -> None:
    engine = FakeAsyncLLM()
    engine.errored = True
    with pytest.raises(WorkerError, match="has died"):
        await worker(engine).receive_weights(MANIFEST)
    with pytest.raises(WorkerError, match="is not running"):
        await RolloutEngine("rollout-0", SPEC).receive_weights(MANIFEST)


async def test_held_engine_takes_requests_in_and_starts_them_together() -> None:
    engine = FakeAsyncLLM()
    async with worker(engine)._calls.held():
        assert engine.events == ["pause keep False"]
    assert engine.events == ["pause keep False", "resume"]


async def test_shutdown_of_what_is_not_running_does_nothing() -> None:
    await RolloutEngine("rollout-0", SPEC).shutdown()


def test_engine_arguments_state_everything_that_changes_what_is_sampled() -> None:
    arguments = engine_arguments(SPEC)
    assert arguments["generation_config"] == "vllm"
    assert arguments["logprobs_mode"] == "processed_logprobs"
    assert arguments["enable_chunked_prefill"] is False, "on CPU a seeded request with a cut prompt kills the engine"
    assert arguments["max_num_batched_tokens"] >= arguments["max_model_len"]
