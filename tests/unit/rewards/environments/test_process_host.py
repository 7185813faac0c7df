"""What hosts of every kind share: a process an episode, ends counted, episodes that cannot begin."""

from __future__ import annotations

import asyncio
import os
import signal

from rayzero.rewards.environments.hosts import host_of
from rayzero.services.schema.config.environment import PythonEnvironment
from rayzero.services.schema.episodes import EpisodeEnd
from tests.environment_hosts import host_for, outcome_of, run_with_hosts
from tests.fakes_episodes import FakeSessions, episode_request, in_turn, said

COUNTING = PythonEnvironment(factory="tests.fakes_episodes:Counting")


def test_a_fork_server_that_died_is_started_anew() -> None:
    async def run() -> None:
        host = host_for(COUNTING)
        first = await host.process()
        assert host._server is not None
        server, pid = host._server, host._server.pid
        first.kill()
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            while server.alive:
                await asyncio.sleep(0.01)
        (await host.process()).kill()
        assert host._server is not server

    run_with_hosts(run())


def test_an_episode_that_cannot_begin_has_its_prompt_and_says_why() -> None:
    async def run() -> None:
        host = host_of(PythonEnvironment(factory="tests.fakes_episodes:no_such_class"))
        sessions = FakeSessions(in_turn(said("never asked")))
        record = await host.run_episode(episode_request(), sessions)
        outcome = outcome_of(record)
        assert outcome.end is EpisodeEnd.ENVIRONMENT_ERROR and "no_such_class" in outcome.reason
        assert len(record.prompt_token_ids) and not record.completion.num_tokens and not sessions.open
        assert host.counts == {EpisodeEnd.ENVIRONMENT_ERROR: 1}
        await host.close()
        await host.close()

    run_with_hosts(run())
