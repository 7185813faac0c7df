"""`rayzero env play`: one episode of an environment, played at the terminal or by a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from rayzero.rewards.environments.live import LiveEnvironment
from rayzero.rewards.environments.worker import EnvironmentHost
from rayzero.services.planning.model_shape import read_shape
from rayzero.services.planning.models import resolve_model
from rayzero.services.planning.prompt_tokenizer import open_tokenizer
from rayzero.services.run.inference import engines_alone, generation_recipe
from rayzero.services.schema.config.environment import PythonEnvironment
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeOutcome, EpisodeRequest, ToolCall
from rayzero.services.schema.errors import ActorStartError, EnvironmentFailed, UsageError
from rayzero.services.schema.messages import ChatMessage, Prompt, Sampling
from rayzero.services.schema.printable import printable
from rayzero.services.schema.terminal import terminal

WINDOW_TURNS = 16
"""Turns of the longest answer that a model's window is made for."""


def play(settings: PythonEnvironment, row: Mapping[str, Any], model: str | None, max_tokens: int, seed: int) -> None:
    """One episode, printed as it goes (a model's: at its end).

    Raises:
        UsageError: the environment cannot be used, or failed.
    """
    console = terminal()
    try:
        if model is None:
            asyncio.run(_by_hand(console, settings, _request(row, max_tokens, seed)))
        else:
            asyncio.run(_by_model(console, settings, _request(row, max_tokens, seed), model, max_tokens))
    except (ActorStartError, EnvironmentFailed) as error:
        raise UsageError(str(error)) from None


async def _by_hand(console: Console, settings: PythonEnvironment, request: EpisodeRequest) -> None:
    host = EnvironmentHost(settings)
    try:
        await host.start()
        for tool in host.tools:
            console.print(f"tool {escape(json.dumps(tool['function']))}", style="dim", soft_wrap=True)
        live = LiveEnvironment(process=await host.process(), settings=settings, programs=host.programs)
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
    finally:
        await host.close()


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


async def _by_model(
    console: Console, settings: PythonEnvironment, request: EpisodeRequest, model: str, max_tokens: int
) -> None:
    path = resolve_model(model, say=lambda text: console.print(text, style="dim"))
    shape, tokenizer = read_shape(path, trained=False), open_tokenizer(path)
    has_turns = tokenizer is None or bool(tokenizer.chat_template)
    recipe = generation_recipe(model, max_tokens * WINDOW_TURNS, shape.max_positions, has_turns=has_turns)
    host = EnvironmentHost(settings)
    try:
        await host.start()
        async with engines_alone(recipe, path, console) as engines, engines.lease(recipe.deadlines.group_s) as slot:
            record = await host.run_episode(request, slot.live_worker)
    finally:
        await host.close()
    console.print(record.prompt_text, style="dim", markup=False, soft_wrap=True)
    outcome = record.completion.outcome
    assert outcome is not None
    for message in outcome.messages:
        _say(console, message)
    _say_end(console, outcome)


def _request(row: Mapping[str, Any], max_tokens: int, seed: int) -> EpisodeRequest:
    columns = {name: value for name, value in row.items() if name not in ("prompt", "answer")}
    prompt = Prompt(
        prompt_id="played",
        messages=_messages(row.get("prompt", "")),
        answer=row.get("answer"),
        columns=columns,
    )
    sampling = Sampling(num_completions=1, max_tokens=max_tokens, seed=seed)
    return EpisodeRequest(group_id=0, index=0, prompt=prompt, sampling=sampling, environment_seed=seed)


def _messages(prompt: str | Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
    """A text is one user message."""
    if isinstance(prompt, str):
        return (ChatMessage(role="user", content=prompt),)
    try:
        return tuple(ChatMessage(role=each["role"], content=each["content"]) for each in prompt)
    except (KeyError, TypeError):
        raise UsageError("--row: prompt must be a text, or a list of {role, content}") from None


def _say(console: Console, message: ChatMessage) -> None:
    calls = " ".join(f"{call.name}({json.dumps(dict(call.arguments))})" for call in message.tool_calls)
    text = " ".join(filter(None, (message.content, calls)))
    console.print(f"[bold]{message.role}[/bold]  {escape(printable(text))}", soft_wrap=True)


def _say_end(console: Console, outcome: EpisodeOutcome) -> None:
    reward = "none" if outcome.reward is None else f"{outcome.reward:g}"
    why = f" ({printable(outcome.reason)})" if outcome.reason else ""
    console.print(f"{outcome.end}{escape(why)}; reward {reward}", style="cyan")
