"""Episodes with real processes against a scripted engine: tools, limits, ends, and environments that do harm."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from rayzero.rewards.environments.live import LiveEnvironment
from rayzero.rewards.environments.worker import EnvironmentHost
from rayzero.services.schema.config.environment import PythonEnvironment
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord, ToolCall
from rayzero.services.schema.errors import ActorStartError, EngineFailed, EnvironmentFailed
from tests.environment_hosts import host_for, outcome_of, run_with_hosts
from tests.fakes_episodes import FakeSessions, Speaker, calls, environment, episode_request, in_turn, said

COUNT = in_turn(calls("add", number=3), calls("subtract", number=1), said("it is 2"))
QUICK = {"start_s": 5.0, "step_s": 0.5}


def play(settings: PythonEnvironment, speak: Speaker = COUNT, **columns: Any) -> EpisodeRecord:
    """One episode of an environment against an engine that says this."""
    return play_many(settings, FakeSessions(speak), [columns])[0]


def play_many(settings: PythonEnvironment, sessions: FakeSessions, rows: list[dict[str, Any]]) -> list[EpisodeRecord]:
    """Episodes side by side, one a row."""

    async def run() -> list[EpisodeRecord]:
        host = host_for(settings)
        requests = [episode_request(index, **columns) for index, columns in enumerate(rows)]
        return list(await asyncio.gather(*(host.run_episode(request, sessions) for request in requests)))

    return run_with_hosts(run())


def contents(record: EpisodeRecord, role: str) -> list[str]:
    """What one side said."""
    return [message.content for message in outcome_of(record).messages if message.role == role]


def test_a_model_and_an_environment_take_turns() -> None:
    sessions = FakeSessions(COUNT)
    (record,) = play_many(environment("Counting"), sessions, [{"start": 10}])
    outcome = outcome_of(record)
    assert (outcome.end, outcome.reward) == (EpisodeEnd.ANSWERED, 12.0)
    assert contents(record, "tool") == ["the sum is 13", "the sum is 12"]
    assert [message.tool_call_id for message in outcome.messages if message.role == "tool"] == ["call-0"] * 2
    assert outcome.metrics == {"tool_calls": 2.0, "tool_failures": 0.0}
    assert len(record.completion.turns) == 3 and record.completion.turns[0].environment_s > 0
    assert sessions.requests[0].prompt.messages[-1].content.startswith("play: seed 7 draws ")
    assert not sessions.open


def test_it_describes_its_tools_and_refuses_what_is_no_environment() -> None:
    async def described(settings: PythonEnvironment) -> EnvironmentHost:
        host = EnvironmentHost(settings)
        await host.start()
        await host.close()
        return host

    host = asyncio.run(described(environment("Counting", tools=["calculator"])))
    assert [tool["function"]["name"] for tool in host.tools] == ["calculator", "add", "subtract"]
    assert host.has_reward
    with pytest.raises(ActorStartError, match="no method reset"):
        asyncio.run(described(environment("FakeSessions", arguments={"speak": None})))
    with pytest.raises(ActorStartError, match="NoSuch"):
        asyncio.run(described(environment("NoSuch")))
    with pytest.raises(ActorStartError, match=r"2 methods besides reset and get_reward \(add, subtract\)"):
        asyncio.run(described(environment("Counting", tool_parser="text")))


def test_the_seed_decides_what_an_environment_draws() -> None:
    first, second = play_many(environment("Counting"), FakeSessions(COUNT), [{}, {}])
    assert first.prompt_text == second.prompt_text


def test_an_exception_and_an_unknown_tool_are_what_the_model_sees() -> None:
    record = play(environment("Counting"), in_turn(calls("add", number=-1), calls("fly"), calls("add", speed=1)))
    seen = contents(record, "tool")
    assert seen[:2] == ["{'error': 'only upwards'}", "{'error': 'Tool fly not found.'}"]
    assert "unexpected keyword argument" in seen[2]
    assert outcome_of(record).metrics["tool_failures"] == 3


def test_whole_turns_go_to_the_one_method() -> None:
    record = play(environment("Echo", tool_parser="text"), in_turn(said("ha"), said("bye"), said("not reached")))
    assert contents(record, "user") == ["hahaha"] and contents(record, "assistant") == ["ha", "bye"]
    assert outcome_of(record).end is EpisodeEnd.ANSWERED


def test_an_environment_that_is_done_ends_the_episode() -> None:
    record = play(environment("Counting"), in_turn(calls("add", number=200), said("not reached")))
    assert len(record.completion.turns) == 1 and outcome_of(record).reward == 200


def test_every_limit_has_its_end() -> None:
    again = in_turn(*[calls("add", number=1)] * 9)
    record = play(environment("Counting", limits={"turns": 3}), again)
    assert (outcome_of(record).end, outcome_of(record).reward) == (EpisodeEnd.MAX_TURNS, 3.0)
    record = play(environment("Counting", limits={"tool_calls": 2}), again)
    assert (outcome_of(record).end, outcome_of(record).reward) == (EpisodeEnd.MAX_TOOL_CALLS, 2.0)
    record = play(environment("Echo", tool_parser="text", limits={"observation_chars": 20}), in_turn(said("abc" * 100)))
    (seen,) = contents(record, "user")[:1]
    assert seen == "abcabcabca\n[… 880 characters cut …]\nbcabcabcabc"[:11] + seen[11:] and "880 characters cut" in seen
    sessions = FakeSessions(again)
    sessions.ends = {2: EpisodeEnd.CONTEXT}
    (record,) = play_many(environment("Counting"), sessions, [{}])
    assert (outcome_of(record).end, outcome_of(record).reward) == (EpisodeEnd.CONTEXT, 1.0)


def test_a_late_episode_ends_with_what_it_has() -> None:
    sessions = FakeSessions(COUNT)
    sessions.delay_s = 0.8
    limits = {"episode_s": 1.0, "step_s": 1.0}
    (record,) = play_many(environment("Counting", limits=limits), sessions, [{}])
    assert (outcome_of(record).end, outcome_of(record).reward) == (EpisodeEnd.EPISODE_DEADLINE, 3.0)
    assert not sessions.open


@pytest.mark.parametrize("policy", ["observe", "end", "mask"])
def test_a_malformed_call_is_what_the_recipe_says(policy: str) -> None:
    broken = said("<tool_call>{", ToolCall(name="", call_id="c", error="no JSON"))
    record = play(environment("Counting", malformed=policy), in_turn(broken, calls("add", number=4)))
    if policy == "end":
        assert outcome_of(record).end is EpisodeEnd.PARSE_ERROR and len(record.completion.turns) == 1
        return
    assert contents(record, "tool") == ["{'error': 'no JSON'}", "the sum is 4"]
    assert record.completion.is_sampled is not None
    assert record.completion.is_sampled[:2].all() == (policy == "observe")
    assert np.isnan(record.completion.rollout_logprobs[:2]).all() == (policy == "mask")
    assert len(record.completion.turns) == (3 if policy == "observe" else 2)


HARMS = {
    "loop": EpisodeEnd.STEP_DEADLINE,
    "sleep": EpisodeEnd.STEP_DEADLINE,
    "exit": EpisodeEnd.ENVIRONMENT_ERROR,
    "memory": EpisodeEnd.ENVIRONMENT_ERROR,
    "system_exit": EpisodeEnd.ENVIRONMENT_ERROR,
    "close": EpisodeEnd.ENVIRONMENT_ERROR,
    "forge": EpisodeEnd.ENVIRONMENT_ERROR,
    "flood": EpisodeEnd.ENVIRONMENT_ERROR,
    "torn": EpisodeEnd.ENVIRONMENT_ERROR,
    "talk": EpisodeEnd.ANSWERED,
    "raise": EpisodeEnd.ANSWERED,
}


def test_what_a_tool_does_to_its_process_costs_its_episode_alone() -> None:
    settings = environment("Hostile", limits=QUICK, memory_bytes=2**28)
    rows = [{"harm": harm} for harm in HARMS] + [{}]
    started = time.monotonic()
    records = play_many(settings, FakeSessions(in_turn(calls("act"))), rows)
    assert time.monotonic() - started < 20
    assert {harm: outcome_of(record).end for harm, record in zip(HARMS, records, strict=False)} == HARMS
    honest = outcome_of(records[-1])
    assert (honest.end, honest.reward) == (EpisodeEnd.ANSWERED, 1.0)
    for record in records:
        outcome = outcome_of(record)
        assert (outcome.reward is None) == (outcome.end is not EpisodeEnd.ANSWERED)
        assert bool(outcome.reason) == (outcome.end is not EpisodeEnd.ANSWERED)


@pytest.mark.parametrize("where", ["reset", "get_reward"])
def test_a_reset_or_a_reward_that_fails_is_an_error(where: str) -> None:
    settings = environment("Hostile", limits={"start_s": 2.0, "step_s": 0.5}, memory_bytes=2**28)
    rows = [{"harm": harm, "where": where} for harm in ("loop", "exit", "raise", "memory", "forge")]
    for record in play_many(settings, FakeSessions(in_turn(calls("act"))), rows):
        outcome = outcome_of(record)
        assert outcome.end is EpisodeEnd.ENVIRONMENT_ERROR and outcome.reward is None and outcome.reason
        assert len(record.completion.turns) <= (1 if where == "reset" else 2)


@pytest.mark.parametrize("value", [10**400, float("nan"), float("-inf"), True, "1", [1]])
async def test_a_reward_that_is_forged_ends_the_episode_alone(value: Any) -> None:
    class Forged:
        async def ask_in(self, op: str, deadline_s: float) -> dict[str, Any]:
            return {"reward": value}

    process: Any = Forged()
    with pytest.raises(EnvironmentFailed, match="return a finite number"):
        await LiveEnvironment(process=process, settings=environment("Counting")).reward()


def test_an_engine_that_dies_is_named() -> None:
    sessions = FakeSessions(COUNT)
    sessions.dead = True
    with pytest.raises(EngineFailed, match="the engine is dead"):
        play_many(environment("Counting"), sessions, [{}])
