"""Generated hostile completions, answers and rows: every one gets a verdict, and the verdict can be written down.

`make test` judges five hundred by every reward that needs no sandbox. The long form judges twenty thousand by all of
them, records them as a run does, and asks the run's API for them.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from rayzero.rewards.base import MAX_REASON_CHARS
from rayzero.rewards.registry import Capacity, build_rubric
from rayzero.rewards.scorer import as_case
from rayzero.services.observe.recorder import Recorder
from rayzero.services.schema.config.reward_components import AnyComponent
from rayzero.services.schema.messages import Group, Rollout, Verdict, VerdictStatus
from tests.hostile_cases import KINDS, HostileCase, completion_of, hostile_cases
from tests.unit.services.observe.api.kit import Watched

BOXED = ("code", "reasoning_gym")
SETTINGS: dict[str, dict[str, Any]] = {"language": {"target": "en"}, "choice": {"options_column": "options"}}
COMPONENT: TypeAdapter[AnyComponent] = TypeAdapter(AnyComponent)
TOGETHER = 200


async def judge_all(cases: Iterable[HostileCase]) -> list[tuple[HostileCase, Verdict]]:
    """Each by the reward that it is made for."""
    by_kind: dict[str, list[HostileCase]] = defaultdict(list)
    for one in cases:
        by_kind[one.kind].append(one)
    judged: list[tuple[HostileCase, Verdict]] = []
    for kind, ours in by_kind.items():
        component = COMPONENT.validate_python({"kind": kind, **SETTINGS.get(kind, {})})
        rubric = build_rubric({kind: component}, Capacity(num_children=2))
        try:
            for start in range(0, len(ours), TOGETHER):
                some = ours[start : start + TOGETHER]
                asked = [as_case(one.prompt, one.prompt_text, completion_of(one.completion)) for one in some]
                judged += zip(some, await rubric.judge(asked), strict=True)
        finally:
            await rubric.close()
    return judged


def faults_of(verdict: Verdict) -> list[str]:
    """What is wrong with it as a message that is recorded, served and shown."""
    faults = [] if verdict.status in set(VerdictStatus) else ["no status"]
    faults += ["NaN beside a verdict"] if math.isnan(verdict.reward) is not verdict.is_error else []
    faults += ["an error without a cause"] if verdict.is_error and verdict.cause is None else []
    faults += ["an exception"] if verdict.cause == "exception" else []
    faults += ["a long reason"] if len(verdict.reason) > 12 * MAX_REASON_CHARS else []
    try:
        json.dumps([verdict.reason, verdict.components, verdict.tests], allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        faults.append(str(error))
    return faults


async def test_every_case_has_a_verdict_that_can_be_written() -> None:
    kinds = tuple(kind for kind in KINDS if kind not in BOXED)
    judged = await judge_all(hostile_cases(500, kinds=kinds))
    assert len(judged) == 500
    assert not [
        (one.number, one.kind, fault, verdict.reason) for one, verdict in judged for fault in faults_of(verdict)
    ]


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_twenty_thousand_go_through_verdict_recorder_and_api(tmp_path: Path) -> None:
    judged = await judge_all(hostile_cases(20_000, seed=1))
    assert not [
        (one.number, one.kind, fault, verdict.reason) for one, verdict in judged for fault in faults_of(verdict)
    ]
    groups = [
        Group(
            group_id=one.number, prompt=one.prompt, prompt_token_ids=completion_of("").token_ids,
            rollouts=(Rollout(completion=completion_of(one.completion), verdict=verdict),),
        )
        for one, verdict in judged
    ]  # fmt: skip
    watched = Watched(tmp_path)
    recorder = Recorder(watched.directory)
    for update, start in enumerate(range(0, len(groups), TOGETHER), start=1):
        recorder.on_update({"update": update}, groups[start : start + TOGETHER])
    async with watched.client() as client:
        total = 0
        for offset in range(0, len(groups), 100):
            answer = await client.get("/v1/groups", params={"limit": 100, "offset": offset})
            assert answer.status_code == 200
            total += len(answer.json()["groups"])
        samples = await client.get("/v1/samples", params={"limit": 100})
        assert samples.status_code == 200
    assert total == len(groups)
