"""`rayzero env play`: one episode of an environment, played at the terminal or by a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from rayzero.rewards.environments.hosts import host_of
from rayzero.rewards.environments.live import LiveEnvironment
from rayzero.rewards.environments.process_host import ProcessHost
from rayzero.rewards.environments.worker import EnvironmentHost
from rayzero.services.planning.model_shape import read_shape
from rayzero.services.planning.models import resolve_model
from rayzero.services.planning.prompt_tokenizer import open_tokenizer
from rayzero.services.run.environment_rows import first_row, request_of
from rayzero.services.run.inference import engines_alone, generation_recipe
from rayzero.services.schema.config.environment import AnyEnvironment, PythonEnvironment
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeOutcome, EpisodeRecord, EpisodeRequest, ToolCall
from rayzero.services.schema.errors import ActorStartError, EnvironmentFailed, UsageError
from rayzero.services.schema.messages import ChatMessage, Sampling
from rayzero.services.schema.printable import printable
from rayzero.services.schema.terminal import terminal

WINDOW_TURNS = 16
"""Turns of the longest answer that a model's window is made for."""


def play(settings: PythonEnvironment, row: Mapping[str, Any], model: str | None, max_tokens: int, seed: int) -> None:
    """One episode, printed as it goes (a model's: at its end).

    Raises:
        UsageError: the environment cannot be used, or failed.
    """
    asyncio.run(_play(terminal(), settings, request_of(row, max_tokens, seed), model, max_tokens))


def play_recipe(recipe: Recipe, row: Mapping[str, Any] | None, model: str | None, max_tokens: int, seed: int) -> None:
    """One episode of a recipe's environment, of any kind.

    Raises:
        UsageError: it has none, it cannot be used, or failed.
    """
    if recipe.environment is None:
        raise UsageError("the recipe has no environment: there is nothing to play")
    request = request_of(first_row(recipe) if row is None else row, max_tokens, seed)
    asyncio.run(_play(terminal(), recipe.environment, request, model, max_tokens, recipe))


async def _play(
    console: Console,
    settings: AnyEnvironment,
    request: EpisodeRequest,
    model: str | None,
    max_tokens: int,
    recipe: Recipe | None = None,
) -> None:
    host = host_of(settings)
    try:
        await host.start()
        if model is not None:
            await _by_model(console, host, request, model, max_tokens)
        elif isinstance(host, EnvironmentHost):
            await _by_hand(console, host, request)
        else:
            assert recipe is not None
            await _as_its_model(console, host, request, recipe)
    except (ActorStartError, EnvironmentFailed) as error:
        raise UsageError(str(error)) from None
    finally:
        await host.close()


async def _by_hand(console: Console, host: EnvironmentHost, request: EpisodeRequest) -> None:
    for tool in host.tools:
        console.print(f"tool {escape(json.dumps(tool['function']))}", style="dim", soft_wrap=True)
    live = LiveEnvironment(process=await host.process(), settings=host.settings, programs=host.programs)
    observation = await live.reset(request)
    _say(console, ChatMessage(role="user", content=request.prompt.messages[-1].content + (observation or "")))
    end: EpisodeEnd | None = None
    while end is None:
        try:
            line = await asyncio.to_thread(input, "> ")
        except EOFError:
            break
        answer = await live.answer(read_turn(line, reads_calls=bool(host.tools)))
        for message in answer.messages:
            _say(console, message)
        end = answer.end
    reward = await live.reward() if live.process.is_alive else None
    _say_end(console, EpisodeOutcome(end=end or EpisodeEnd.ABORTED, reward=reward))
    live.kill()


async def _as_its_model(console: Console, host: ProcessHost, request: EpisodeRequest, recipe: Recipe) -> None:
    """An agent asks by itself: the turns that it is given are typed."""
    from rayzero.services.run.spoken_engine import open_engine  # sessions, and with them transformers

    shown = ""

    async def typed(context: str, sampling: Sampling) -> str:
        nonlocal shown
        new = context[len(shown) :] if context.startswith(shown) else context
        console.print(printable(new), style="dim", markup=False, soft_wrap=True)
        try:
            line = await asyncio.to_thread(input, "> ")
        except EOFError:
            line = ""
        shown = context + line
        return line

    engine = open_engine(recipe.rollout, resolve_model(recipe.model.path), typed)
    try:
        _say_all(console, await host.run_episode(request, engine))
    finally:
        await engine.close()


def read_turn(line: str, *, reads_calls: bool) -> ChatMessage:
    """A typed line as a turn: `add {"number": 3}` calls a tool where there are any; anything else is said."""
    name, _, rest = line.strip().partition(" ")
    if reads_calls and name.isidentifier():
        try:
            arguments = json.loads(rest or "{}")
        except ValueError:
            arguments = None
        if isinstance(arguments, dict):
            call = ToolCall(name=name, arguments=arguments, call_id="typed")
            return ChatMessage(role="assistant", content="", tool_calls=(call,))
    return ChatMessage(role="assistant", content=line)


async def _by_model(console: Console, host: ProcessHost, request: EpisodeRequest, model: str, max_tokens: int) -> None:
    path = resolve_model(model, say=lambda text: console.print(text, style="dim"))
    shape, tokenizer = read_shape(path, trained=False), open_tokenizer(path)
    has_turns = tokenizer is None or bool(tokenizer.chat_template)
    recipe = generation_recipe(model, max_tokens * WINDOW_TURNS, shape.max_positions, has_turns=has_turns)
    async with engines_alone(recipe, path, console) as engines, engines.lease(recipe.deadlines.group_s) as slot:
        record = await host.run_episode(request, slot.live_worker)
    _say_all(console, record)


def _say_all(console: Console, record: EpisodeRecord) -> None:
    console.print(record.prompt_text, style="dim", markup=False, soft_wrap=True)
    outcome = record.completion.outcome
    assert outcome is not None
    for message in outcome.messages:
        _say(console, message)
    _say_end(console, outcome)


def _say(console: Console, message: ChatMessage) -> None:
    calls = " ".join(f"{call.name}({json.dumps(dict(call.arguments))})" for call in message.tool_calls)
    text = " ".join(filter(None, (message.content, calls)))
    console.print(f"[bold]{message.role}[/bold]  {escape(printable(text))}", soft_wrap=True)


def _say_end(console: Console, outcome: EpisodeOutcome) -> None:
    reward = "none" if outcome.reward is None else f"{outcome.reward:g}"
    why = f" ({printable(outcome.reason)})" if outcome.reason else ""
    console.print(f"{outcome.end}{escape(why)}; reward {reward}", style="cyan")
