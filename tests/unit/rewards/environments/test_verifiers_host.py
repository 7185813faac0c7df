"""Tasksets of verifiers in processes of another Python, with a stand-in of the package; the package itself is in
tests/integration/test_verifiers.py."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from rayzero.rewards.environments.verifiers_host import VerifiersHost
from rayzero.services.data.tasks.verifiers import tasks
from rayzero.services.schema.config.environment import VerifiersEnvironment
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord
from rayzero.services.schema.errors import ActorStartError, RecipeError
from rayzero.services.schema.other_python import OtherPython
from tests.environment_hosts import host_for, outcome_of, run_with_hosts
from tests.episode_models import unfolded
from tests.fakes_agents import served
from tests.fakes_episodes import episode_request
from tests.source_tree import ROOT


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "verifiers").mkdir()
    shutil.copy(ROOT / "tests/verifiers_stand_in.py", folder / "verifiers/__init__.py")
    return folder


@pytest.fixture(autouse=True)
def _says_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OtherPython, "fault", lambda *_: "")


def taskset(folder: Path, name: str = "my-tasks", **settings: Any) -> VerifiersEnvironment:
    """One of the stand-in's."""
    limits = {"turns": 3, "start_s": 20, "step_s": 3}
    given = {"python": sys.executable, "taskset": name, "folder": str(folder), "limits": limits, **settings}
    return VerifiersEnvironment.model_validate(given)


def play(settings: VerifiersEnvironment, **data: Any) -> EpisodeRecord:
    """One episode of a task."""

    async def run() -> EpisodeRecord:
        host = host_for(settings)
        (await host.process()).kill()  # the fork server is up: what follows is timed
        async with served("abc") as engine:
            columns: dict[str, Any] = (
                {"verifiers_task": json.dumps({"prompt": "play: ", **data})} if data != {"task": None} else {}
            )
            record = await host.run_episode(episode_request(**columns), engine)
            assert unfolded(record) == engine.engine.feeds
            return record

    return run_with_hosts(run())


def test_a_taskset_is_played_and_gives_its_reward(stand_in: Path) -> None:
    record = play(taskset(stand_in))
    outcome = outcome_of(record)
    assert (outcome.end, outcome.reward, outcome.reason) == (EpisodeEnd.ANSWERED, 0.5, "")
    assert [message.content for message in outcome.messages] == ["abc"] and len(record.completion.turns) == 1
    assert outcome.metrics == {"length": 3.0, "reward/right": 1.0, "tool_calls": 0.0, "tool_failures": 0.0}
    assert not record.completion.branches


@pytest.mark.parametrize(
    ("harm", "end", "reward", "words"),
    [
        ("limit", "max_turns", 0.5, ""),
        ("late", "episode_deadline", 0.5, ""),
        ("unscored", "answered", None, ""),
        ("raise", "environment_error", None, "TaskError: planted"),
        ("exit", "environment_error", None, "ended with status 3 in run"),
        ("hang", "step_deadline", None, "nor ended within 3 s"),
    ],
)
def test_what_a_taskset_does_costs_its_episode_alone(
    stand_in: Path, harm: str, end: str, reward: float | None, words: str
) -> None:
    outcome = outcome_of(play(taskset(stand_in), harm=harm))
    assert (outcome.end, outcome.reward) == (end, reward) and words in outcome.reason


def test_a_row_without_a_task_and_an_agent_that_is_not_trained_are_errors(stand_in: Path) -> None:
    outcome = outcome_of(play(taskset(stand_in), task=None))
    assert outcome.end is EpisodeEnd.ENVIRONMENT_ERROR and "has no column verifiers_task" in outcome.reason
    outcome = outcome_of(play(taskset(stand_in, "with-judge")))
    assert "its agent judge is not trained" in outcome.reason and "environment.options.judge" in outcome.reason


def start(settings: VerifiersEnvironment) -> None:
    """As an environment worker does, and `rayzero check`."""

    async def run() -> None:
        host = VerifiersHost(settings)
        await host.start()
        await host.close()

    asyncio.run(run())


def test_a_taskset_that_cannot_be_made_is_named(stand_in: Path) -> None:
    start(taskset(stand_in, preload=False))
    with pytest.raises(ActorStartError, match=r"taskset no-such cannot be used: .*not found; .*environment\.folder"):
        start(taskset(stand_in, "no-such"))
    with pytest.raises(ActorStartError, match="speed: extra inputs are not permitted"):
        start(taskset(stand_in, arguments={"speed": 1}))
    with pytest.raises(ActorStartError, match="its Python cannot be started"):
        start(taskset(stand_in, python="/no/such/python"))
    with pytest.raises(ActorStartError, match="No module named 'verifiers'"):
        start(taskset(stand_in / "verifiers"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"options": {"taskset": {}}}, r"options\.taskset: write it as taskset"),
        ({"arguments": {"id": "x"}}, r"arguments\.id: write it as taskset"),
        ({"taskset": "my.tasks"}, "imports one module by its name"),
        ({"taskset": "my tasks"}, "string_pattern_mismatch|match pattern"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VerifiersEnvironment.model_validate({"python": "python", "taskset": "my", **settings})
    assert VerifiersEnvironment(python="python", taskset="a/My-Tasks@0.1").module == "my_tasks"


def test_tasks_are_rows(stand_in: Path) -> None:
    rows = list(tasks(sys.executable, "my-tasks", 2, first=5, arguments={"word": "go"}, folder=str(stand_in)))
    assert [row["answer"] for row in rows] == ["5", "6"]
    assert rows[0]["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "go 5"}]
    assert json.loads(rows[0]["verifiers_task"])["prompt"] == "go 5"
    assert len(list(zip(range(1), tasks(sys.executable, "my-tasks", 10**9, folder=str(stand_in)), strict=False))) == 1
    with pytest.raises(RecipeError, match="taskset no-such cannot be read: ModuleNotFoundError"):
        list(tasks(sys.executable, "no-such", folder=str(stand_in)))


def test_nothing_is_left_in_the_temporary_folder(stand_in: Path) -> None:
    async def run() -> str:
        host = VerifiersHost(taskset(stand_in))
        folder = str(host._folder)
        assert os.path.isdir(folder)
        await host.close()
        return folder

    assert not os.path.exists(asyncio.run(run()))
