"""The API over a run on fakes: what it shows, what it changes, and what it refuses without changing anything."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from rayzero.services.observe.recorder import Recorder
from rayzero.services.store.json_lines import read_lines
from tests.fakes import impossible, make_group
from tests.unit.services.observe.api.kit import Watched

CHANGES = ["scale", "pause", "resume", "drain", "checkpoint", "stop"]


async def test_a_finished_run_is_shown_whole(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.go()
    async with watched.client() as client:
        status = (await client.get("/v1/status")).json()
        assert (status["update"], status["num_updates"], status["paused"]) == (3, 3, False)
        assert {worker["worker"]: worker["state"] for worker in status["workers"]} == {
            "rollout-0": "serving",
            "reward-0": "serving",
        }
        assert (await client.get("/v1/weights")).json()["engines"] == {"rollout-0": 3}
        assert [row["update"] for row in (await client.get("/v1/rows?after=1")).json()["rows"]] == [2, 3]
        assert (await client.get("/v1/queues")).json()["groups"]["generating"] == 0
        page = (await client.get("/v1/groups?kind=train&limit=2")).json()
        assert page["total"] == 6 and [group["version"] for group in page["groups"]] == [3, 3]
        group = (await client.get(f"/v1/groups/{page['groups'][0]['key']}")).json()
        assert [rollout["reward"] for rollout in group["rollouts"]] == [0.0, 1.0]
        assert (await client.get("/v1/choices")).json()["num_rollouts"] == 16
        assert len((await client.get("/v1/samples?status=correct&limit=3")).json()) == 3


async def test_a_token_that_the_sampler_gave_no_chance_is_shown(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.go()
    Recorder(watched.directory).on_update({"update": 4, "time_s": 1.0}, [impossible(make_group(90))])
    async with watched.client() as client:
        group = (await client.get("/v1/groups/update_000004:90")).json()
    assert group["rollouts"][0]["rollout_logprobs"] == [-0.5, None, -0.5]


async def test_two_versions_of_a_prompt_are_compared(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.go()
    async with watched.client() as client:
        both = (await client.get("/v1/compare", params={"prompt_id": "train/100", "a": 0, "b": 3})).json()
        assert (both["a"]["key"], both["b"]["key"]) == ("evaluation_000000:-1", "evaluation_000003:-1")
        missing = await client.get("/v1/compare", params={"prompt_id": "train/100", "a": 0, "b": 2})
        assert missing.status_code == 409 and "versions of it: 0, 3" in missing.json()["detail"]


async def test_every_change_is_made_and_recorded(tmp_path: Path) -> None:
    watched = Watched(tmp_path, num_updates=10_000)
    await watched.start()
    running = asyncio.create_task(watched.run.controller.run())
    async with watched.client() as client, asyncio.timeout(20):
        assert (await client.post("/v1/scale", json={"rollout": 3})).status_code == 202
        while (await client.get("/v1/status")).json()["fleets"]["rollout"]["serving"] < 3:
            await asyncio.sleep(0.01)
        assert (await client.post("/v1/pause", json={})).json() == {"paused": True}
        standing = (await client.get("/v1/status")).json()
        await asyncio.sleep(0.05)
        assert standing["paused"] and (await client.get("/v1/status")).json()["update"] == standing["update"]
        assert (await client.post("/v1/resume", json={})).json() == {"paused": False}
        assert (await client.post("/v1/drain", json={"worker": "rollout-1"})).json() == {"drained": "rollout-1"}
        saved = (await client.post("/v1/checkpoint", json={})).json()["version"]
        assert saved in watched.run.watcher.saved
        assert (await client.post("/v1/stop", json={})).status_code == 202
        await running
        events = [event["event"] for event in (await client.get("/v1/events")).json()]
    assert events == ["ready", "scale", "pause", "resume", "drain", "checkpoint", "stop"]
    assert [event["event"] for event in read_lines(watched.directory.file("events.jsonl"))] == events
    assert read_lines(watched.directory.file("events.jsonl"))[1]["before"] == {"rollout": 1, "reward": 1}


BAD: list[tuple[str, Any]] = [
    ("scale", {}),
    ("scale", {"rollout": -1}),
    ("scale", {"rollout": "3"}),
    ("scale", {"rollout": 2.5}),
    ("scale", {"rollout": True}),
    ("scale", {"rollout": 65}),
    ("scale", {"reward": 0}),
    ("scale", {"rolout": 2}),
    ("scale", [1]),
    ("drain", {}),
    ("drain", {"worker": "rollout-9"}),
    ("drain", {"worker": "rollout-0", "deadline_s": -1}),
    ("pause", {"now": True}),
    ("stop", None),
]


@pytest.mark.parametrize(("change", "body"), BAD)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(tmp_path: Path, change: str, body: Any) -> None:
    watched = Watched(tmp_path)
    await watched.start()
    async with watched.client() as client:
        before = (await client.get("/v1/status")).json()
        answer = await client.post(f"/v1/{change}", json=body)
        after = (await client.get("/v1/status")).json()
    assert 400 <= answer.status_code < 500 and answer.json()["detail"]
    assert without_time(before) == without_time(after)


def without_time(status: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key not in ("seconds", "stalled_s")}


@pytest.mark.parametrize("change", CHANGES)
async def test_before_the_run_is_up_nothing_can_be_changed(tmp_path: Path, change: str) -> None:
    watched = Watched(tmp_path)
    bodies: dict[str, dict[str, Any]] = {"scale": {"rollout": 1}, "drain": {"worker": "rollout-0"}}
    body = bodies.get(change, {})
    async with watched.client() as client:
        answer = await client.post(f"/v1/{change}", json=body)
        assert answer.status_code == 409 and "cannot be controlled now" in answer.json()["detail"]
        assert (await client.get("/v1/status")).json()["phase"] == "training"


async def test_an_unknown_group_or_query_is_named(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.go()
    async with watched.client() as client:
        answers: list[httpx.Response] = [
            await client.get("/v1/groups/..%2F..%2Fetc%2Fpasswd"),
            await client.get("/v1/groups/update_000001:99"),
            await client.get("/v1/groups?sort=reward;drop"),
            await client.get("/v1/groups?limit=100000"),
            await client.get("/v1/groups?max_reward=nan"),
        ]
    assert [400 <= answer.status_code < 500 for answer in answers] == [True] * 5


async def test_the_targets_name_the_run_and_its_workers(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.start()
    watched.run.workers["rollout-0"].metrics_target = "10.0.0.1:9000"
    async with watched.client() as client:
        targets = (await client.get("/sd")).json()
    assert targets == [
        {"targets": ["127.0.0.1:1"], "labels": {"run": "run", "component": "controller", "instance": "controller"}},
        {"targets": ["10.0.0.1:9000"], "labels": {"run": "run", "component": "rollout", "instance": "rollout-0"}},
    ]
