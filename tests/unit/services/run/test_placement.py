"""What is started again when it was lost on the way, and what is not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.run import placement
from rayzero.services.run.placement import Placement, despite_losses
from rayzero.services.schema.cpu_process import cpu_environment
from rayzero.services.schema.errors import ActorLostError, ActorStartError
from tests.fakes import make_recipe
from tests.simulated_time import run_simulated


class Starter:
    """Fails as often as there are errors, and then starts."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.at_s: list[float] = []

    async def __call__(self) -> Any:
        self.at_s.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        return "actor"


LOST = ActorLostError("learner could not start: it was cancelled before it started running\n  its log: learner.log")


def test_an_actor_that_was_lost_while_it_started_is_started_again_after_a_while() -> None:
    starter = Starter(LOST, LOST)
    assert run_simulated(despite_losses(starter)) == "actor"
    assert starter.at_s == [0.0, placement.LOST_WAITS_S[0], sum(placement.LOST_WAITS_S)]


def test_one_that_is_lost_every_time_ends_with_the_last_cause() -> None:
    starter = Starter(LOST, LOST, LOST, LOST)
    with pytest.raises(ActorLostError, match="cancelled"):
        run_simulated(despite_losses(starter))
    assert len(starter.at_s) == 1 + len(placement.LOST_WAITS_S)


def test_one_that_cannot_start_is_not_started_again() -> None:
    starter = Starter(ActorStartError("no such model"))
    with pytest.raises(ActorStartError, match="no such model"):
        run_simulated(despite_losses(starter))
    assert len(starter.at_s) == 1


def test_a_learner_on_cpus_starts_with_the_allocator_and_its_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[dict[str, Any]] = []

    async def spawn(self: Placement, name: str, wrapper: Any, actor: Any, options: dict[str, Any], *_: Any) -> str:
        asked.append(options)
        return name

    monkeypatch.setattr(Placement, "_spawn", spawn)
    asyncio.run(Placement(make_recipe(), tmp_path, tmp_path).learner())
    variables = asked[0]["runtime_env"]["env_vars"]
    assert variables.items() >= cpu_environment().items() and int(variables["OMP_NUM_THREADS"]) >= 1
