"""Servers that speak OpenEnv's wire: started, hung, dead, full; in whole turns and with tools. OpenEnv itself is in
tests/integration/test_openenv.py."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from rayzero.rewards.environments.openenv_host import OpenEnvHost
from rayzero.services.schema.config.environment import OpenEnvEnvironment
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeOutcome
from rayzero.services.schema.errors import ActorStartError
from tests.environment_hosts import host_for, outcome_of, run_with_hosts
from tests.fakes_episodes import FakeSessions, calls, episode_request, in_turn, said
from tests.source_tree import ROOT

SERVER = (sys.executable, str(ROOT / "tests/openenv_stand_in.py"), "--port", "{port}")
LIMITS = {"turns": 6, "start_s": 20, "step_s": 3}


def server(*more: str, **settings: Any) -> OpenEnvEnvironment:
    """Started by the worker, in whole turns."""
    given = {"command": [*SERVER, *more], "tool_parser": "text", "limits": LIMITS, **settings}
    return OpenEnvEnvironment.model_validate(given)


def play(settings: OpenEnvEnvironment, speak: Callable[..., Any], **columns: Any) -> EpisodeOutcome:
    """One episode."""

    async def run() -> EpisodeOutcome:
        host = host_for(settings)
        await host.start()
        return outcome_of(await host.run_episode(episode_request(**columns), FakeSessions(speak)))

    return run_with_hosts(run())


def observed(outcome: EpisodeOutcome) -> list[str]:
    """What the server said after turns."""
    return [message.content for message in outcome.messages if message.role in ("user", "tool")]


def test_whole_turns_are_actions_and_each_has_its_reward() -> None:
    outcome = play(server(), in_turn(said("2"), said('{"number": 3}'), said("much"), said("-1"), said("9")))
    assert outcome.end is EpisodeEnd.ANSWERED and outcome.reward == pytest.approx(1.4)
    assert observed(outcome)[:2] == ["the sum is 3", "the sum is 6"]  # the seed says 1
    assert "only upwards" in observed(outcome)[2] and "only upwards" in observed(outcome)[3]
    assert outcome.turn_rewards == (0.2, 0.3, None, None, 0.9) and outcome.metrics["tool_failures"] == 2


def test_tools_of_a_server_are_the_models() -> None:
    settings = server("--tools", tool_parser="auto")
    outcome = play(settings, in_turn(calls("add", number=4), calls("take", number=4), said("done")))
    assert outcome.end is EpisodeEnd.ANSWERED and outcome.reward == pytest.approx(0.8)
    assert observed(outcome)[0] == "the sum is 5"
    host = host_for(settings)
    assert isinstance(host, OpenEnvHost)
    assert [tool["function"]["name"] for tool in host.tools] == ["add"]


def test_a_server_without_tools_has_its_step_as_one() -> None:
    settings = server(tool_parser="auto")
    outcome = play(settings, in_turn(calls("step", number=4), said("done")))
    assert observed(outcome) == ["the sum is 5"]
    host = host_for(settings)
    assert isinstance(host, OpenEnvHost)
    (tool,) = host.tools
    assert tool["function"]["name"] == "step" and set(tool["function"]["parameters"]["properties"]) == {"number"}


def test_reset_is_given_what_the_recipe_says() -> None:
    assert observed(play(server(reset={"start": 7}), in_turn(said("1"))))[0] == "the sum is 8"
    assert observed(play(server(columns=["start"]), in_turn(said("1")), start=5, other=1))[0] == "the sum is 6"
    outcome = play(server(observation="said", action="number", reward="last"), in_turn(said("1"), said("9")))
    assert outcome.reward == 0.9


def test_a_step_that_hangs_and_a_server_that_dies_cost_their_episodes_alone() -> None:
    settings = server()
    hung = play(settings, in_turn(said("99")))
    assert hung.end is EpisodeEnd.STEP_DEADLINE and hung.reward is None
    dead = play(settings, in_turn(said("98")))
    assert dead.end is EpisodeEnd.ENVIRONMENT_ERROR and "did not answer step" in dead.reason
    again = play(settings, in_turn(said("9")))
    assert again.end is EpisodeEnd.ANSWERED, "it was started again"


def test_a_server_that_is_about_to_be_gone_is_started_again() -> None:
    """Its process may still be there when its port is closed."""
    settings = server()

    async def run() -> EpisodeOutcome:
        host = host_for(settings)
        await host.start()
        assert isinstance(host, OpenEnvHost) and host._started is not None
        dying = host._started
        os.killpg(dying.pid, signal.SIGKILL)
        await asyncio.to_thread(dying.wait)
        dying.poll = lambda: None  # type: ignore[method-assign]
        return outcome_of(await host.run_episode(episode_request(0), FakeSessions(in_turn(said("9")))))

    assert run_with_hosts(run()).end is EpisodeEnd.ANSWERED


def test_an_episode_waits_for_a_session() -> None:
    settings = server("--sessions", "1")

    async def run() -> list[EpisodeOutcome]:
        host = host_for(settings)
        await host.start()
        records = await asyncio.gather(
            *(host.run_episode(episode_request(n), FakeSessions(in_turn(said("3"), said("9")))) for n in range(3))
        )
        return [outcome_of(record) for record in records]

    assert [outcome.end for outcome in run_with_hosts(run())] == [EpisodeEnd.ANSWERED] * 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"command": ["no-such-server", "{port}"]}, "no-such-server"),
        ({"command": [sys.executable, "-c", "exit(7)", "{port}"]}, "ended with status 7 before it answered"),
        ({"command": ["sleep", "60{port}"]}, "did not answer on port .* within 1 s"),
        ({"command": (), "url": "http://127.0.0.1:9"}, "no OpenEnv server answers at http://127.0.0.1:9"),
    ],
)
def test_a_server_that_is_not_there_is_named(settings: dict[str, Any], words: str) -> None:
    async def start() -> None:
        host = OpenEnvHost(server(**settings, limits={"start_s": 1, "step_s": 1}))
        await host.start()

    with pytest.raises(ActorStartError, match=words):
        asyncio.run(start())


def test_its_server_ends_with_the_worker() -> None:
    async def run() -> int:
        host = OpenEnvHost(server())
        await host.start()
        assert host._started is not None
        pid = host._started.pid
        os.kill(pid, 0)
        await host.close()
        return pid

    with pytest.raises(ProcessLookupError):
        os.kill(asyncio.run(run()), 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "give a url .* or a command"),
        ({"url": "http://a", "command": ["b", "{port}"]}, "one of the two"),
        ({"command": ["server"]}, r"no word has \{port\}"),
        ({"url": "http://a", "action": "x"}, "needs tool_parser: text"),
        ({"url": "ftp://a"}, "pattern"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        OpenEnvEnvironment.model_validate(settings)
