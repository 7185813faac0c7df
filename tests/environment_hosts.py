"""Environment workers without Ray that live as long as a test's module: their fork servers take seconds to start."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rayzero.rewards.environments.hosts import host_of
from rayzero.rewards.environments.process_host import ProcessHost
from rayzero.services.schema.config.environment import AnyEnvironment
from rayzero.services.schema.episodes import EpisodeOutcome, EpisodeRecord

T = TypeVar("T")
_HOSTS: dict[str, ProcessHost] = {}
"""By settings."""
_RUNNERS: list[asyncio.Runner] = []


@contextmanager
def hosts_kept() -> Iterator[None]:
    """Hosts and the event loop that they belong to, until the block ends."""
    with asyncio.Runner() as runner:
        _RUNNERS.append(runner)
        yield
        for host in _HOSTS.values():
            runner.run(host.close())
        _HOSTS.clear()
        _RUNNERS.clear()


def host_for(settings: AnyEnvironment) -> ProcessHost:
    """The one of these settings."""
    return _HOSTS.setdefault(settings.model_dump_json(), host_of(settings))


def run_with_hosts(work: Coroutine[Any, Any, T]) -> T:
    """In their event loop."""
    return _RUNNERS[0].run(work)


def outcome_of(record: EpisodeRecord) -> EpisodeOutcome:
    """How an episode went."""
    assert record.completion.outcome is not None and record.completion.end is record.completion.outcome.end
    return record.completion.outcome
