"""`rayzero scale | pause | resume | drain | checkpoint | stop`: what one asks of a live run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from rayzero.services.cli.client import RunAddress, RunClient
from rayzero.services.schema.errors import DeadlineError, RunUnreachable, UsageError
from rayzero.services.schema.printable import printable

POLL_S = 1.0
ROLES = ("rollout", "reward", "environment")


def parse_targets(changes: Sequence[str]) -> dict[str, int]:
    """`["rollout=3", "reward=4"]` as numbers by role.

    Raises:
        UsageError: says how to write it.
    """
    targets: dict[str, int] = {}
    for change in changes:
        role, _, number = change.partition("=")
        if role not in ROLES or not number.isdigit() or role in targets:
            raise UsageError(f"{change!r}: write it as rollout=3, reward=4 or environment=2, each at most once")
        targets[role] = int(number)
    return targets


def scale(changes: Sequence[str], run: RunAddress, wait_s: float, as_json: bool) -> None:
    """Change the number of workers; with `wait_s` above 0 return when they are there.

    Raises:
        DeadlineError: not all of them serve yet; names what they do.
    """
    targets = parse_targets(changes)
    client = RunClient(run)
    answer = client.change("/v1/scale", targets)
    fleets = answer["fleets"]
    deadline = time.monotonic() + wait_s
    while wait_s > 0 and not _reached(fleets, targets):
        if time.monotonic() > deadline:
            states = ", ".join(f"{role}: {fleets[role]}" for role in targets)
            raise DeadlineError(
                f"not there after {wait_s:g} s ({states}). Workers that stay `coming` wait for Ray to place them: "
                "`ray status` shows what it lacks"
            )
        time.sleep(POLL_S)
        before, fleets = fleets, client.get("/v1/status")["fleets"]
        if fleets != before:
            _tell(", ".join(f"{role}: {_states(fleets[role])}" for role in targets), as_json)
    if as_json:
        print(json.dumps({"before": answer["before"], "fleets": fleets}))
        return
    for role in targets:
        print(f"{role}: {answer['before'][role]} -> {fleets[role]['target']} ({_states(fleets[role])})")


def change(
    what: str,
    run: RunAddress,
    as_json: bool,
    body: dict[str, Any] | None = None,
    deadline_s: float = 3600.0,
    say: Callable[[dict[str, Any]], str] = str,
    waits_for: str = "",
) -> None:
    """One change, its answer as JSON or in words. `waits_for`: why the answer may take long, said before it."""
    client = RunClient(run, deadline_s)
    client.meet()
    _tell(waits_for, as_json)
    answer = client.change(f"/v1/{what}", body)
    print(json.dumps(answer) if as_json else printable(say(answer)))


def stop(run: RunAddress, wait_s: float, as_json: bool) -> None:
    """Let the run finish its update, save and end; with `wait_s` above 0 return when it has.

    Raises:
        DeadlineError: it is still there.
    """
    client = RunClient(run)
    client.change("/v1/stop")
    deadline = time.monotonic() + wait_s
    if wait_s > 0:
        _tell("it finishes the update under way and saves", as_json)
    while wait_s > 0:
        try:
            client.get("/healthz")
        except RunUnreachable:
            break
        if time.monotonic() > deadline:
            raise DeadlineError(f"the run has not ended within {wait_s:g} s; it is finishing its update or saving")
        time.sleep(POLL_S)
    ended = wait_s > 0
    if as_json:
        print(json.dumps({"stopping": True, "ended": ended}))
    else:
        print("it has ended: the command that began it goes on from its last checkpoint" if ended else "it is stopping")


def _tell(waits_for: str, as_json: bool) -> None:
    """What a command waits for, beside its output."""
    if waits_for and not as_json:
        print(f"{printable(waits_for)} …", file=sys.stderr)


def _reached(fleets: dict[str, Any], targets: dict[str, int]) -> bool:
    return all(
        fleets[role]["serving"] == number and not fleets[role]["coming"] and not fleets[role]["draining"]
        for role, number in targets.items()
    )


def _states(fleet: dict[str, int]) -> str:
    states = [f"{fleet[state]} {state}" for state in ("serving", "coming", "draining") if fleet[state]]
    return ", ".join(states) or "none"
