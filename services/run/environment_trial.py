"""`rayzero env check`: an environment tried by itself, as a run would use it; finds hangs, crashes and differences."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from rayzero.rewards.environments.agent_host import AskingHost
from rayzero.rewards.environments.hosts import host_of
from rayzero.rewards.environments.live import LiveEnvironment
from rayzero.rewards.environments.process_host import ProcessHost
from rayzero.rewards.environments.worker import EnvironmentHost
from rayzero.services.planning.models import resolve_model
from rayzero.services.run.environment_rows import first_row, request_of
from rayzero.services.schema.config.environment import PythonEnvironment
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.episodes import EpisodeEnd, ToolCall
from rayzero.services.schema.errors import ActorStartError, EnvironmentFailed, UsageError
from rayzero.services.schema.messages import ChatMessage
from rayzero.services.schema.printable import printable
from rayzero.services.schema.terminal import terminal

NUM_MOVES = 6
"""Turns of each trial episode."""
SEEDS = (1, 2)
WORDS = ("1", "07", "yes", "stop", "a", "12", "no", "Paris")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialFinding:
    """One thing that was looked at."""

    name: str
    is_well: bool
    detail: str


@dataclass(slots=True)
class TrialEpisode:
    """What an environment said, and how long it took."""

    said: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By step: make, reset, answer, get_reward."""
    failure: str = ""
    num_failed: int = 0


def check(settings: PythonEnvironment, row: Mapping[str, Any], as_json: bool) -> int:
    """Try a class and print what was found; 0 when all is well."""
    findings, tools = asyncio.run(_check(host_of(settings), row))
    return _print(findings, tools, as_json)


def check_recipe(recipe: Recipe, row: Mapping[str, Any] | None, as_json: bool) -> int:
    """Try the environment of a recipe, of any kind; 0 when all is well.

    Raises:
        UsageError: it has none.
    """
    if recipe.environment is None:
        raise UsageError("the recipe has no environment: there is nothing to check")
    row = first_row(recipe) if row is None else row
    findings, tools = asyncio.run(_check(host_of(recipe.environment), row, recipe))
    return _print(findings, tools, as_json)


def _print(findings: Sequence[TrialFinding], tools: Sequence[Any], as_json: bool) -> int:
    sound = all(finding.is_well for finding in findings)
    if as_json:
        shown = {"sound": sound, "tools": tools, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(shown, indent=2))
        return 0 if sound else 1
    console = terminal()
    for tool in tools:
        console.print_json(json.dumps(tool["function"]))
    table = Table()
    for name in ("looked at", "", "found"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        mark = "[green]well[/green]" if finding.is_well else "[red]NOT WELL[/red]"
        table.add_row(finding.name, mark, escape(printable(finding.detail)))
    console.print(table)
    return 0 if sound else 1


async def _check(
    host: ProcessHost, row: Mapping[str, Any], recipe: Recipe | None = None
) -> tuple[list[TrialFinding], list[Any]]:
    try:
        if isinstance(host, AskingHost) and recipe is not None:
            from rayzero.services.run.agent_trial import try_agent  # sessions, and with them transformers

            return await try_agent(recipe, host, row, resolve_model(recipe.model.path)), []
        assert isinstance(host, EnvironmentHost)
        try:
            await host.start()
        except ActorStartError as error:
            return [TrialFinding(name="made and described", is_well=False, detail=str(error))], []
        reward = "gives a reward" if host.has_reward else "gives no reward: a rubric must judge"
        described = f"{len(host.tools)} tools; {reward}" if host.tools else f"reads whole turns; {reward}"
        findings = [TrialFinding(name="made and described", is_well=True, detail=described)]
        first = await _trial(host, row, SEEDS[0])
        findings.append(_ends(first))
        if not first.failure:
            again, other = await _trial(host, row, SEEDS[0]), await _trial(host, row, SEEDS[1])
            findings.append(_repeats(first, again, other))
            pair = await asyncio.gather(*(_trial(host, row, seed) for seed in SEEDS))
            findings.append(_side_by_side((first, other), pair))
        findings.append(_times(first))
        return findings, list(host.tools)
    finally:
        await host.close()


async def _trial(host: EnvironmentHost, row: Mapping[str, Any], seed: int) -> TrialEpisode:
    """One episode of made-up turns, the same for a seed."""
    trial, moves = TrialEpisode(), _moves(host, seed)
    started = time.perf_counter()
    live: LiveEnvironment | None = None

    def mark(step: str) -> None:
        nonlocal started
        now = time.perf_counter()
        trial.seconds[step].append(now - started)
        started = now

    try:
        live = LiveEnvironment(process=await host.process(), settings=host.settings, programs=host.programs)
        mark("make")
        trial.said.append(str(await live.reset(request_of(row, 1, seed))))
        mark("reset")
        for move in moves:
            answer = await live.answer(move)
            mark("answer")
            trial.num_failed += answer.num_failed
            trial.said += [message.content for message in answer.messages]
            if answer.end is EpisodeEnd.STEP_DEADLINE:
                trial.failure = f"it hangs: no answer within {host.settings.limits.step_s:g} s to {_shown(move)}"
            if answer.end is not None:
                break
        if not trial.failure:
            trial.said.append(f"reward {await live.reward()}")
            mark("get_reward")
    except EnvironmentFailed as error:
        trial.failure = str(error)
    finally:
        if live is not None:
            live.kill()
    return trial


def _moves(host: EnvironmentHost, seed: int) -> list[ChatMessage]:
    """Made-up turns: whole texts, or calls of its tools with arguments of the right types."""
    chance = random.Random(seed)
    if not host.tools:
        return [ChatMessage(role="assistant", content=chance.choice(WORDS)) for _ in range(NUM_MOVES)]
    moves = []
    for number in range(NUM_MOVES):
        tool = host.tools[number % len(host.tools)]["function"]
        schema = tool["parameters"]
        arguments = {name: _value(schema["properties"][name], chance) for name in schema.get("required", ())}
        call = ToolCall(name=tool["name"], arguments=arguments, call_id=f"call-{number}")
        moves.append(ChatMessage(role="assistant", content="", tool_calls=(call,)))
    return moves


def _value(schema: Mapping[str, Any], chance: random.Random) -> Any:
    if "enum" in schema:
        return chance.choice(list(schema["enum"]))
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    match kind:
        case "integer":
            return chance.randint(0, 20)
        case "number":
            return round(chance.uniform(0, 20), 2)
        case "boolean":
            return chance.random() < 0.5
        case "array":
            return [_value(schema.get("items", {}), chance) for _ in range(2)]
        case "object":
            return {}
    return chance.choice(WORDS)


def _ends(trial: TrialEpisode) -> TrialFinding:
    name = "an episode of made-up turns"
    if trial.failure:
        return TrialFinding(name=name, is_well=False, detail=trial.failure)
    failed = f"; {trial.num_failed} calls raised, which the model would see" if trial.num_failed else ""
    number = len(trial.seconds["answer"])
    return TrialFinding(name=name, is_well=True, detail=f"{number} turns, {trial.said[-1]}{failed}")


def _repeats(first: TrialEpisode, again: TrialEpisode, other: TrialEpisode) -> TrialFinding:
    name = "the same for the same seed"
    if again.said != first.said or again.failure:
        detail = again.failure or difference(first.said, again.said)
        hint = "take `seed` in reset, and draw from random.Random(seed)"
        return TrialFinding(name=name, is_well=False, detail=f"{detail}; {hint}")
    note = "" if other.said != first.said else "; another seed changes nothing"
    return TrialFinding(name=name, is_well=True, detail=f"{len(first.said)} answers alike{note}")


def _side_by_side(alone: Sequence[TrialEpisode], pair: Sequence[TrialEpisode]) -> TrialFinding:
    name = "two at once"
    for one, other in zip(alone, pair, strict=True):
        if one.said != other.said or other.failure:
            detail = other.failure or difference(one.said, other.said)
            return TrialFinding(name=name, is_well=False, detail=f"{detail}: they share a file, a port or a server")
    return TrialFinding(name=name, is_well=True, detail="each as by itself")


def difference(one: Sequence[str], other: Sequence[str]) -> str:
    """Where two episodes part, in words."""
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            what = "reset" if number == 0 else f"answer {number}"
            return f"{what} was {a[:80]!r}, and then {b[:80]!r}"
    return f"{len(one)} answers, and then {len(other)}"


def _times(trial: TrialEpisode) -> TrialFinding:
    shown = [f"{step} {1000 * max(seconds):.1f} ms" for step, seconds in trial.seconds.items()]
    return TrialFinding(name="longest step of a kind", is_well=True, detail=", ".join(shown) or "none")


def _shown(move: ChatMessage) -> str:
    if not move.tool_calls:
        return repr(move.content)
    call = move.tool_calls[0]
    return f"{call.name}({json.dumps(dict(call.arguments))})"
