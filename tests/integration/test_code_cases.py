"""Labelled cases of the code reward, as `rayzero grade` reads them. Every verdict must be right, `error` included."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from rayzero.rewards.base import Context
from rayzero.rewards.grading.case_lines import read_line
from rayzero.rewards.kinds.code_reward import code_reward
from rayzero.services.schema.messages import VerdictStatus
from tests.system import needs

pytestmark = needs("bwrap")
CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "corpus" / "code.jsonl").read_text().splitlines()]
NUM_AT_ONCE = 40


def test_there_are_as_many_as_promised() -> None:
    assert len({case["id"] for case in CASES}) == len(CASES) >= 300
    for expected, least in (("correct", 100), ("wrong", 120), ("error", 25)):
        assert sum(case["expected"] == expected for case in CASES) >= least


def _is_offered(case: dict[str, Any]) -> bool:
    try:
        return all(metadata.distribution(name) for name in case.get("packages", ()))
    except metadata.PackageNotFoundError:
        return case["expected"] == "error"


async def _judged(cases: list[dict[str, Any]]) -> dict[str, str]:
    """What is wrong, by case."""
    reward = code_reward(num_parallel=2, bare_column="bare")
    bad = {}
    try:
        await reward.start()
        for start in range(0, len(cases), NUM_AT_ONCE):
            chosen = cases[start : start + NUM_AT_ONCE]
            lines = [read_line(json.dumps(case).encode(), "code") for case in chosen]
            scores = await reward.score([line.case for line in lines], Context())
            for case, score in zip(chosen, scores, strict=True):
                if score.status is not VerdictStatus(case["expected"]):
                    bad[case["id"]] = f"{score.status}, not {case['expected']}: {score.reason}"
    finally:
        await reward.close()
    return bad


async def test_every_verdict_is_right() -> None:
    cases = [case for case in CASES if _is_offered(case)]
    bad = await _judged(cases)
    if bad:  # a loaded machine may starve a box; a wrong rule is wrong twice
        bad = await _judged([case for case in cases if case["id"] in bad])
    assert not bad
