"""The package verifiers itself, in a Python of its own: its example taskset is trained on for two updates.

`make setup-environments` makes that Python; RAYZERO_VERIFIERS names another.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rayzero.services.data.tasks.verifiers import tasks
from rayzero.services.schema.episodes import EpisodeEnd
from rayzero.services.schema.messages import Completion
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.ledger import audit
from rayzero.services.store.rollout_file import read_groups
from tests.integration.test_episodes import SMALL, finish, rayzero
from tests.source_tree import ROOT

RECIPE = "examples/number_taskset.yaml"
PYTHON = os.environ.get("RAYZERO_VERIFIERS", str(ROOT / ".venv-verifiers/bin/python"))

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not os.path.exists(PYTHON) and os.environ.get("RAYZERO_CI") != "1",
        reason="verifiers is not there (make setup-environments, or RAYZERO_VERIFIERS=venv/bin/python)",
    ),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates."""
    os.environ["RAYZERO_VERIFIERS"] = PYTHON
    return finish(tmp_path_factory.mktemp("verifiers") / "run", "training.max_staleness=1", recipe=RECIPE)


def episodes_of(run_dir: Path) -> list[Completion]:
    """All that were trained on."""
    files = sorted((run_dir / "rollouts").glob("update_*.jsonl"))
    groups = [group for file in files for group in read_groups(file)]
    return [rollout.completion for group in groups for rollout in group.rollouts]


def test_two_updates_are_trained_on_what_the_session_recorded(trained: Path) -> None:
    assert audit(trained).problems == ()
    rows = read_lines(trained / "metrics.jsonl")
    assert [row["update"] for row in rows] == [1, 2] and rows[-1]["episode_turns_mean"] > 1
    episodes = episodes_of(trained)
    ends = {episode.end for episode in episodes}
    assert EpisodeEnd.ANSWERED in ends and ends <= {
        EpisodeEnd.ANSWERED, EpisodeEnd.MAX_TURNS, EpisodeEnd.MAX_TOKENS,
    }  # fmt: skip
    rewards = [episode.outcome.reward for episode in episodes if episode.outcome is not None]
    assert len(rewards) == len(episodes) and len(set(rewards)) > 2
    for episode in episodes:
        assert episode.outcome is not None and episode.outcome.metrics["reward/game"] == episode.outcome.reward
        sampled = np.ones(episode.num_tokens, bool) if episode.is_sampled is None else episode.is_sampled
        assert np.isfinite(episode.rollout_logprobs[sampled]).all()
        assert {branch.reason for branch in episode.branches} <= {"cut_off"}
    again = rayzero("regrade", str(trained))
    assert again.returncode == 0, again.stdout + again.stderr


def test_a_turn_goes_on_from_the_tokens_that_were_sampled(trained: Path) -> None:
    whole = [episode for episode in episodes_of(trained) if not episode.branches]
    assert len(whole) > 8 and any(len(episode.turns) > 1 for episode in whole)


def test_its_tasks_are_rows() -> None:
    rows = list(tasks(PYTHON, "number-taskset", 3, first=2, folder="examples"))
    assert [row["messages"][0]["content"] for row in rows] == ["0002?", "0003?", "0004?"]


def test_check_says_what_is_missing() -> None:
    assert SMALL
    for change, words in (
        ("environment.python=/no/such/python", "environment: python: /no/such/python cannot be started"),
        ("environment.taskset=no-such-taskset", "the taskset no-such-taskset cannot be used"),
        ("environment.arguments={speed: 1}", "speed"),
    ):
        checked = rayzero("check", RECIPE, change)
        assert checked.returncode != 0 and words in " ".join((checked.stdout + checked.stderr).split()), checked.stderr
