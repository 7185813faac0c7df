"""Reasons and causes are fixed words; what was recorded when detail stood in the same text is still read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rayzero.services.observe.browse.rollout_index import Filter, RolloutIndex
from rayzero.services.schema.causes import DropReason, ErrorCause
from rayzero.services.store.rollout_file import read_groups, rollout_lines
from tests.fakes import make_group

BEFORE = (
    '{"group_id": 7, "index": 0, "prompt_id": "train/7", "source": "default", "worker": "", "messages": '
    '[{"role": "user", "content": "say 7"}], "answer": "7", "completion": "42", "reward": null, "status": "error", '
    '"components": {}, "reason": "deadline: accuracy: no answer after 5 s", "seconds": 5.0, "num_tokens": 3, '
    '"finish_reason": "stop", "versions": [[0, 3, 0]], "token_ids": [0, 1, 2], "rollout_logprobs": [-0.5, -0.5, -0.5],'
    ' "kl_rollout": null, "prompt_token_ids": [0, 1, 2, 3], "dropped": "verdict errors"}\n'
)
"""A line of a rollouts file, as it was before errors had a cause of their own."""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("failed: generation failed 3 times; the last cause: rollout-0 died: gone", DropReason.FAILED),
        ("refused: the prompt has 900 tokens", DropReason.REFUSED),
        ("halted: loss is NaN", DropReason.HALTED),
        ("over-provisioned", DropReason.OVER_PROVISIONED),
        ("uniform rewards", DropReason.UNIFORM_REWARDS),
        ("lost at sea", DropReason.UNKNOWN),
    ],
)
def test_a_reason_is_read_from_the_text_that_it_was(text: str, reason: DropReason) -> None:
    assert DropReason.read(text) is reason


def test_a_recorded_rollout_of_before_has_its_cause(tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    file = tmp_path / "rollouts" / "dropped.jsonl"
    file.write_text(BEFORE, encoding="utf-8")
    verdict = read_groups(file)[0].rollouts[0].verdict
    assert (verdict.cause, verdict.reason) == (ErrorCause.DEADLINE, "deadline: accuracy: no answer after 5 s")
    index = RolloutIndex(tmp_path, cache=tmp_path / "cache")
    index.refresh()
    groups, total = index.groups(Filter(), "newest", 10, 0)
    assert total == 1 and groups[0]["key"] == "dropped:7"


def test_a_cause_is_recorded_and_read_back(tmp_path: Path) -> None:
    group = make_group(1, rewards=(1.0, math.nan))
    lines = [json.loads(json.dumps(line, default=float)) for line in rollout_lines(group)]
    assert ["cause" in line for line in lines] == [False, True] and lines[1]["cause"] == "exception"
    file = tmp_path / "update_000001.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert [rollout.verdict.cause for rollout in read_groups(file)[0].rollouts] == [None, ErrorCause.EXCEPTION]
