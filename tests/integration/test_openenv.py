"""OpenEnv itself, in a Python of its own: its example server is trained with for two updates, and killed in the middle.

`make setup-environments` makes that Python; RAYZERO_OPENENV names another.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.ledger import audit
from rayzero.services.store.rollout_file import read_groups
from tests.integration.test_episodes import finish, rayzero
from tests.source_tree import ROOT

RECIPE = "examples/number_server.yaml"
PYTHON = os.environ.get("RAYZERO_OPENENV", str(ROOT / ".venv-openenv/bin/python"))

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not os.path.exists(PYTHON) and os.environ.get("RAYZERO_CI") != "1",
        reason="openenv is not there (make setup-environments, or RAYZERO_OPENENV=venv/bin/python)",
    ),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates."""
    os.environ["RAYZERO_OPENENV"] = PYTHON
    return finish(tmp_path_factory.mktemp("openenv") / "run", recipe=RECIPE)


def test_two_updates_are_trained_on_what_the_server_said(trained: Path) -> None:
    assert audit(trained).problems == ()
    rows = read_lines(trained / "metrics.jsonl")
    assert [row["update"] for row in rows] == [1, 2] and rows[-1]["episode_turns_mean"] > 1
    files = sorted((trained / "rollouts").glob("update_*.jsonl"))
    groups = [group for file in files for group in read_groups(file)]
    outcomes = [rollout.completion.outcome for group in groups for rollout in group.rollouts]
    assert all(outcome is not None and outcome.reward is not None for outcome in outcomes)
    messages = [message for outcome in outcomes if outcome is not None for message in outcome.messages]
    hints = {message.content for message in messages if message.role == "user"}
    assert {"+", "-"} <= hints <= {"+", "-", "?", ""}
    for group in groups:
        for rollout in group.rollouts:
            outcome = rollout.completion.outcome
            assert outcome is not None
            said = [reward for reward in outcome.turn_rewards if reward is not None]
            assert outcome.reward == pytest.approx(sum(said), abs=1e-9) and rollout.verdict.reward == outcome.reward
            assert tuple(turn.reward for turn in rollout.completion.turns)[: len(said)] == tuple(said)
    for command in ("replay", "regrade"):
        done = rayzero(command, str(trained))
        assert done.returncode == 0, done.stdout + done.stderr


def test_check_tries_the_server_and_names_one_that_is_not_there() -> None:
    checked = rayzero("env", "check", RECIPE)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    gone = rayzero("check", RECIPE, 'environment.command=[/no/such/python, x, "{port}"]')
    assert gone.returncode != 0 and "/no/such/python" in " ".join((gone.stdout + gone.stderr).split())
