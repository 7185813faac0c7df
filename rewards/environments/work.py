"""What runs in the process of one episode: the user's class and functions, asked one step at a time.

    {n, op: describe, with_schemas}
                                 -> {n, tools, methods, has_reward}
    {n, op: reset, row, seed}    -> {n, observation}
    {n, op: call, name, arguments} or {n, op: say, text}
                                 -> {n, content, failed, done, reward}
    {n, op: get_reward}          -> {n, reward}

Imports little: this runs in every child.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayzero.rewards.children.fork_server import resolve
from rayzero.rewards.environments.observations import shown
from rayzero.rewards.environments.tools import BUILT_IN

NOT_TOOLS = ("reset", "get_reward")
ITS_TOOLS = ("offered_tools", "call_tool")
"""Of an environment that has its tools from elsewhere: their schemas, and a call of one by its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostSpec:
    """What the process of an episode is made from; travels as pickle, from its own worker."""

    factory: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[str] = ()
    observation_chars: int = 4000


class NotAnEnvironment(Exception):
    """The class lacks what an environment must have; the message says what."""


def episode_host(spec: HostSpec) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The environment of one episode, made; answers one step at a time."""
    host = EpisodeHost(spec)

    def step(item: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in item.items() if name not in ("n", "op")}
        return {"n": item["n"], **getattr(host, item["op"])(**given)}

    return step


class EpisodeHost:
    """One environment and its tools, as TRL has them: sync or async, and an exception of a tool is its answer."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self._runner = asyncio.Runner()
        """One loop an episode: an async client that the environment keeps open stays usable."""
        self.environment = resolve(spec.factory)(**spec.arguments) if spec.factory else None
        functions = [resolve(BUILT_IN.get(name, name)) for name in spec.tools]
        self.tools = {function.__name__: function for function in [*functions, *self._methods()]}

    def describe(self, with_schemas: bool) -> dict[str, Any]:
        """The tools' JSON schemas, from docstrings and types, and what else there is."""
        schemas = self.environment.offered_tools() if self._offers() and self.environment is not None else []
        if with_schemas and self.tools:
            from transformers.utils import get_json_schema  # takes seconds, and a game of whole turns needs none

            schemas += [get_json_schema(tool) for tool in self.tools.values()]
        methods = [method.__name__ for method in self._methods()]
        return {"tools": schemas, "methods": methods, "has_reward": self._reward_of() is not None}

    def reset(self, row: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """A new episode. `seed` goes to the module-wide generators, and to `reset` where it takes one."""
        random.seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed % 2**32)
        if self.environment is None:
            return {"observation": None}
        given = {"seed": seed, **row}
        parameters = inspect.signature(self.environment.reset).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            wanted = {parameter.name for parameter in parameters}
            given = {name: value for name, value in given.items() if name in wanted}
        observation = self._wait(self.environment.reset(**given))
        if observation is not None and not isinstance(observation, str):
            raise NotAnEnvironment(f"reset returned a {type(observation).__name__}: return a text, or None")
        return {"observation": observation}

    def call(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A tool's answer."""
        if name not in self.tools and self._offers() and self.environment is not None:
            environment = self.environment
            return self._ask(lambda **given: environment.call_tool(name, given), arguments)
        if name not in self.tools:
            return self._answer(str({"error": f"Tool {name} not found."}), failed=True)
        return self._ask(self.tools[name], arguments)

    def say(self, text: str) -> dict[str, Any]:
        """The answer to a whole turn, of the one method that the environment has; None: it is over."""
        (method,) = self._methods()
        (parameter,) = inspect.signature(method).parameters
        return self._ask(method, {parameter: text}, ends=True)

    def get_reward(self) -> dict[str, Any]:
        """What the environment gives for the episode; None where it gives nothing."""
        get_reward = self._reward_of()
        value = None if get_reward is None else self._wait(get_reward())
        return {"reward": None if value is None else float(value)}

    def _ask(self, tool: Callable[..., Any], arguments: Mapping[str, Any], ends: bool = False) -> dict[str, Any]:
        try:
            result = self._wait(tool(**arguments))
            content = None if ends and result is None else str(result)
        except MemoryError:
            raise  # what is left of this process cannot be relied on
        except Exception as error:
            return self._answer(str({"error": _text(error)}), failed=True)
        return self._answer(content)

    def _answer(self, content: str | None, failed: bool = False) -> dict[str, Any]:
        cut = None if content is None else shown(content, self.spec.observation_chars)
        done = bool(getattr(self.environment, "done", False))
        return {"content": cut, "failed": failed, "done": done, "reward": self._turn_reward()}

    def _turn_reward(self) -> float | None:
        """What the environment says of the turn that it answers; said once."""
        reward = getattr(self.environment, "turn_reward", None)
        if reward is None:
            return None
        with contextlib.suppress(AttributeError):  # a property of the class
            self.environment.turn_reward = None  # type: ignore[union-attr]
        return float(reward)

    def _methods(self) -> list[Callable[..., Any]]:
        """The environment's tools. Listed on the class: on the instance every property would be evaluated."""
        if self.environment is None:
            return []
        kind = type(self.environment)
        if not callable(getattr(kind, "reset", None)):
            raise NotAnEnvironment(f"{kind.__name__} has no method reset")
        names = [name for name, _ in inspect.getmembers(kind, predicate=inspect.isfunction)]
        none = (*NOT_TOOLS, *ITS_TOOLS) if self._offers() else NOT_TOOLS
        return [getattr(self.environment, name) for name in names if name not in none and not name.startswith("_")]

    def _offers(self) -> bool:
        return all(callable(getattr(type(self.environment), name, None)) for name in ITS_TOOLS)

    def _reward_of(self) -> Callable[[], Any] | None:
        if self.environment is None or not callable(getattr(type(self.environment), "get_reward", None)):
            return None
        method: Callable[[], Any] = self.environment.get_reward
        return method

    def _wait(self, result: Any) -> Any:
        return self._runner.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # a class of a user's may do anything in its __str__
        return type(error).__name__
