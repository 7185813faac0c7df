"""The reward worker where it really runs: an async Ray actor with children of its own."""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayzero.rewards.actor import RewardActor
from rayzero.services.schema.config.reward import RewardSettings
from rayzero.services.schema.messages import ChatMessage, Completion, Prompt, VersionSpan
from tests.process_life import lives

ray = pytest.importorskip("ray")

CUSTOM = "tests.unit.rewards.functions"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="rz-", dir="/tmp") as directory:
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=80 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=f"{directory}/r",
        )
        yield
        ray.shutdown()


def prompt(answer: object, source: str = "default") -> Prompt:
    return Prompt(prompt_id="1", messages=(ChatMessage(role="user", content="Q"),), answer=answer, source=source)


def completion(text: str) -> Completion:
    return Completion(
        text=text,
        token_ids=np.arange(len(text), dtype=np.int32),
        rollout_logprobs=np.zeros(len(text), dtype=np.float32),
        version_spans=(VersionSpan(start=0, end=len(text), policy_version=0),),
        finish_reason="stop",
    )


def actor(settings: dict[str, object]) -> Any:
    options = {"num_cpus": 1, "max_concurrency": 100}
    handle = ray.remote(RewardActor).options(**options).remote(RewardSettings.model_validate(settings))
    ray.get(handle.start.remote(), timeout=120)
    return handle


def test_groups_are_scored_in_an_async_actor() -> None:
    rubric = {"accuracy": {"kind": "math", "gate": "format"}, "format": {"kind": "format", "weight": 0.5}}
    worker = actor({"rubrics": {"default": rubric}})
    texts = ["t</think>\\boxed{\\frac{1}{2}}", "t</think>\\boxed{2}", "\\boxed{0.5}", ""]
    group = [completion(text) for text in texts]
    verdicts = ray.get(worker.score.remote(prompt("1/2"), "Q <think>", group), timeout=60)
    assert [verdict.reward for verdict in verdicts] == [1.5, 0.5, 0.0, 0.0]
    # The prompt opened the thought: without its end there is no answer, whatever is boxed.
    assert [verdict.components["accuracy"] for verdict in verdicts] == [1.0, 0.0, 0.0, 0.0]
    assert ray.get(worker.counts.remote(), timeout=60) == {"correct": 1, "wrong": 3}
    ray.get(worker.shutdown.remote(), timeout=60)
    ray.kill(worker)


def test_a_stuck_group_costs_its_deadline_and_holds_up_nobody(tmp_path: Path) -> None:
    stuck = {"kind": "custom", "function": f"{CUSTOM}:stuck_on", "limits": {"deadline_s": 1.0}}
    worker = actor({"rubrics": {"default": {"accuracy": {"kind": "math"}}, "stuck": {"mine": stuck}}})
    group = [completion("sleep"), completion("fine"), completion("spin in c")]
    started = time.perf_counter()
    hanging = worker.score.remote(prompt(None, "stuck"), "", group)
    healthy = [worker.score.remote(prompt("7"), "", [completion("\\boxed{7}")] * 4) for _ in range(5)]
    assert all(verdict.reward == 1.0 for verdicts in ray.get(healthy, timeout=60) for verdict in verdicts)
    verdicts = ray.get(hanging, timeout=60)
    assert time.perf_counter() - started < 5.0
    assert [verdict.status.value for verdict in verdicts] == ["error", "correct", "error"]
    assert [math.isnan(verdict.reward) for verdict in verdicts] == [True, False, True]
    counts = ray.get(worker.counts.remote(), timeout=60)
    assert counts == {"correct": 21, "error": 2, "error:deadline": 2}
    ray.get(worker.shutdown.remote(), timeout=60)
    ray.kill(worker)


def test_children_die_with_a_killed_actor(tmp_path: Path) -> None:
    function = {"kind": "custom", "function": f"{CUSTOM}:write_pid", "arguments": {"path": str(tmp_path / "pid")}}
    worker = actor({"rubrics": {"default": {"mine": function}}})
    worker.score.remote(prompt(None), "", [completion("x")])
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    ray.kill(worker)

    async def gone() -> None:
        while lives(pid):
            await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(gone(), 10))


def test_a_reward_that_can_never_work_is_refused_at_the_start() -> None:
    custom = {"kind": "custom", "function": "no_such_module:reward"}
    settings = RewardSettings.model_validate({"rubrics": {"code": {"mine": custom}}})
    handle = ray.remote(RewardActor).options(num_cpus=1).remote(settings)
    with pytest.raises(Exception, match=r"rubric 'code': reward component mine: .*No module named 'no_such_module'"):
        ray.get(handle.start.remote(), timeout=60)
    ray.kill(handle)
