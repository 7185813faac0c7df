"""Agents in real processes against real endpoints: rewards, limits, programs of any kind, and what does harm."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from rayzero.rewards.environments.agent_host import AgentHost
from rayzero.services.schema.config.environment import AgentEnvironment
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord
from rayzero.services.schema.errors import ActorStartError, EngineFailed, WorkerError
from tests.environment_hosts import host_for, outcome_of, run_with_hosts
from tests.episode_models import unfolded
from tests.fakes_agents import ServedSessions, served
from tests.fakes_episodes import episode_request


def agent(function: str, **settings: Any) -> AgentEnvironment:
    """An agent of tests/agents.py."""
    return AgentEnvironment.model_validate({"function": f"tests.agents:{function}", **settings})


def command(*words: str, **settings: Any) -> AgentEnvironment:
    """A program."""
    return AgentEnvironment.model_validate({"command": words, **settings})


def script(text: str, **settings: Any) -> AgentEnvironment:
    """A program in Python."""
    return command(sys.executable, "-c", text, **settings)


def play_many(settings: AgentEnvironment, rows: list[dict[str, Any]], *said: str) -> list[EpisodeRecord]:
    """Episodes side by side, one a row: what was sampled is in their records, once."""

    async def run() -> list[EpisodeRecord]:
        host = host_for(settings)
        (await host.process()).kill()  # the fork server is up: what follows is timed
        async with served(*said) as engine:
            requests = [episode_request(index, **columns) for index, columns in enumerate(rows)]
            records = await asyncio.gather(*(host.run_episode(request, engine) for request in requests))
            assert Counter(feed for record in records for feed in unfolded(record)) == Counter(engine.engine.feeds)
            return list(records)

    return run_with_hosts(run())


def play(settings: AgentEnvironment, *said: str, **columns: Any) -> EpisodeRecord:
    """One episode."""
    return play_many(settings, [columns], *said)[0]


def test_a_function_asks_for_turns_and_gives_the_reward() -> None:
    record = play(agent("honest"), "abc", "cab", worth=0.75)
    outcome = outcome_of(record)
    assert (outcome.end, outcome.reward, outcome.reason) == (EpisodeEnd.ANSWERED, 0.75, "")
    assert [(message.role, message.content) for message in outcome.messages] == [
        ("assistant", "abc"), ("user", "go on"), ("assistant", "cab"),
    ]  # fmt: skip
    assert len(record.completion.turns) == 2 and not record.completion.branches
    assert record.completion.text == "cab" and len(outcome.environment_s) == 2


def test_a_prompt_of_its_own_is_a_branch_and_its_messages_are_seen() -> None:
    record = play(agent("of_its_own", arguments={"system": "be brief"}), "abc")
    assert outcome_of(record).reward is None and outcome_of(record).end is EpisodeEnd.ANSWERED
    assert [message.role for message in outcome_of(record).messages] == ["system", "user", "assistant"]
    assert [branch.reason for branch in record.completion.branches] == ["prompt"]


PROGRAM = """
import json, os, sys, urllib.request
row = json.load(sys.stdin)
assert row["prompt"][0]["content"] == "play: " and row["answer"] == "9" and row["seed"] == 7
body = json.dumps({"model": os.environ["OPENAI_MODEL"], "messages": row["prompt"]}).encode()
head = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", data=body, headers=head)
with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
    print(json.loads(answer.read())["choices"][0]["message"]["content"])
print("thinking", file=sys.stderr)
print(row["last"])
sys.exit(row.get("status", 0))
"""


def test_a_program_gets_address_and_row_and_its_last_line_is_the_reward(capfd: pytest.CaptureFixture[str]) -> None:
    lasts = ['{"reward": 0.5}\n\n', '{"reward": null}', "done", '{"reward": 1e999}', '{"reward": "high"}']
    lasts += [f'{{"reward": 1{"0" * 400}}}', '{"reward": true}']
    rows: list[dict[str, Any]] = [{"last": last} for last in lasts]
    records = play_many(script(PROGRAM), [*rows, {"last": "", "status": 4}], *["abc"] * 8)
    outcomes = [outcome_of(record) for record in records]
    assert [outcome.reward for outcome in outcomes] == [0.5, *[None] * 5, 1.0, None]
    ends = [outcome.end.value for outcome in outcomes]
    assert ends == ["answered"] * 3 + ["environment_error"] * 3 + ["answered", "environment_error"]
    assert "give a finite number" in outcomes[3].reason and "'high'" in outcomes[4].reason
    assert outcomes[7].reason == "it ended with status 4"
    assert "[group 3 episode 0] thinking\n" in capfd.readouterr().err


def test_nothing_of_rays_or_the_apis_secrets_is_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("RAY_AUTH_TOKEN", "RAYZERO_API_TOKEN", "OPENAI_API_KEY", "SEARCH_API_KEY")
    for name in secrets:
        monkeypatch.setenv(name, "a secret")
    text = PROGRAM.replace(
        'row["last"]', "json.dumps({'reward': sum(value == 'a secret' for value in os.environ.values())})"
    )
    assert outcome_of(play(script(text), "abc")).reward == 0
    assert outcome_of(play(script(text, environment=["SEARCH_API_KEY"]), "abc")).reward == 1


def test_an_agent_that_cannot_be_started_is_refused_by_name() -> None:
    async def start(settings: AgentEnvironment) -> None:
        host = AgentHost(settings)
        await host.start()
        await host.close()

    asyncio.run(start(agent("honest")))
    for settings, words in [
        (agent("no_such"), "agents:no_such cannot be used: .*no_such"),
        (agent("START"), "cannot be used"),
        (agent("of_its_own"), r"cannot be called as an agent is, with \(row, policy\): missing.*system"),
        (agent("honest", arguments={"speed": 1}), r"with \(row, policy, speed\): got an unexpected"),
        (AgentEnvironment(function="no_such_module:run"), "No module named"),
        (command("no-such-program"), "no-such-program: not found on the PATH"),
        (command("./no_such_file"), "no_such_file: no such file here"),
    ]:
        with pytest.raises(ActorStartError, match=words):
            asyncio.run(start(settings))


@pytest.mark.parametrize(
    ("limits", "end"),
    [({"turns": 3}, "max_turns"), ({"episode_tokens": 60}, "max_tokens"), ({}, "")],
)
def test_a_limit_refuses_the_next_turn_and_names_the_end(limits: dict[str, int], end: str) -> None:
    said = ["abc"] * 40
    settings = agent("unbounded", limits={"turns": 1000, **limits})
    caught, raised = play_many(settings, [{"catches": True}, {}], *said * 2)
    assert outcome_of(caught).reward == 0.25 and outcome_of(raised).reward is None
    for record in (caught, raised):
        assert outcome_of(record).end == (end or "context")
    if limits == {"turns": 3}:
        assert len(raised.completion.turns) == 3 and "episode_max_turns" in outcome_of(raised).reason


def test_tool_calls_are_counted_and_bounded() -> None:
    call = '<tool_call>\n{"name": "look", "arguments": {"at": "abc"}}\n</tool_call>'
    look = {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}
    tools = [{"type": "function", "function": look}]
    record = play(agent("unbounded", limits={"tool_calls": 2}), *[call] * 9, tools=tools)
    outcome = outcome_of(record)
    assert outcome.end is EpisodeEnd.MAX_TOOL_CALLS and "episode_max_tool_calls" in outcome.reason
    assert outcome.metrics["tool_calls"] == 2 and len(outcome.environment_s) == 2


HARMS = {
    "hang before": ("environment_error", "did not ask the model for anything within 10 s"),
    "loop": ("step_deadline", "neither asked the model for a turn nor ended within 3 s"),
    "hang": ("step_deadline", "nor ended within 3 s"),
    "exit": ("environment_error", "its process ended with status 3 before it returned"),
    "kill": ("environment_error", "its process was killed by signal 9 before it returned"),
    "kill parent": ("environment_error", "its process was killed in run"),
    "memory": ("environment_error", "MemoryError"),
    "raise": ("environment_error", "it raised RuntimeError: planted"),
    "flood": ("answered", ""),
    "flood without end": ("step_deadline", "nor ended"),
    "nan": ("environment_error", "give a finite number"),
    "text": ("environment_error", "it raised ValueError"),
    "wrong key": ("answered", ""),
    "sampling": ("answered", ""),
    "late": ("answered", ""),
    "": ("answered", ""),
}


def test_what_an_agent_does_costs_its_episode_alone(capfd: pytest.CaptureFixture[str]) -> None:
    settings = agent("hostile", limits={"start_s": 10, "step_s": 3}, memory_bytes=2**28)
    began = time.monotonic()
    records = play_many(settings, [{"harm": harm} for harm in HARMS], *["abc"] * len(HARMS))
    for (harm, (end, words)), record in zip(HARMS.items(), records, strict=True):
        outcome = outcome_of(record)
        assert outcome.end == end and words in outcome.reason, (harm, outcome)
        assert outcome.reward == (0.5 if end == "answered" else None)
        assert len(record.completion.turns) == (0 if harm == "hang before" else 1)
    assert time.monotonic() - began < 60
    assert len(capfd.readouterr().err) < 200_000, "a flood does not reach the log"


@pytest.mark.parametrize(
    ("harm", "end"), [("leaves others", "answered"), ("leaves others, and hangs", "step_deadline")]
)
def test_what_it_leaves_behind_ends_with_it(tmp_path: Path, harm: str, end: str) -> None:
    note = tmp_path / "pid"
    record = play(agent("hostile", limits={"step_s": 3}), "abc", harm=harm, note=str(note))
    assert outcome_of(record).end == end
    give_up = time.monotonic() + 20
    while psutil.pid_exists(int(note.read_text())):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_an_agent_that_never_asks_is_an_error() -> None:
    outcome = outcome_of(play(agent("not_at_all")))
    assert outcome.end is EpisodeEnd.ENVIRONMENT_ERROR and "without asking" in outcome.reason


def test_an_engine_that_fails_is_not_the_agents_fault() -> None:
    async def run() -> None:
        host = host_for(agent("honest"))
        async with served("abc") as engine:

            async def dead(*_: Any, **__: Any) -> Any:
                raise WorkerError("the engine has died")

            engine.sessions._sample = dead
            with pytest.raises(EngineFailed, match="a turn could not be sampled: the engine has died"):
                await host.run_episode(episode_request(), engine)

    run_with_hosts(run())


def test_an_episode_that_is_not_wanted_any_more_ends_at_once() -> None:
    async def run() -> EpisodeRecord:
        settings = agent("hostile")
        host = host_for(settings)
        async with served("abc") as engine:
            playing = asyncio.ensure_future(host.run_episode(episode_request(harm="hang"), engine))
            while not engine.engine.feeds:
                await asyncio.sleep(0.05)
            engine.sessions.abort(3)
            return await asyncio.wait_for(playing, 20)

    record = run_with_hosts(run())
    assert outcome_of(record).end is EpisodeEnd.ABORTED and outcome_of(record).reward is None


def test_the_same_seeds_ask_for_the_same_turns() -> None:
    async def seeds() -> list[int | None]:
        host = host_for(agent("honest"))
        engine = ServedSessions("abc", "cab")
        await host.run_episode(episode_request(), engine)
        await engine.server.stop()
        return [sampling.seed for sampling in engine.engine.samplings]

    first, second = run_with_hosts(seeds()), run_with_hosts(seeds())
    assert first == second and len(set(first)) == 2
