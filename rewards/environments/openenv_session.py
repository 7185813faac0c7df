"""A session of an OpenEnv server as an environment: of whole turns, or of the server's tools. Speaks OpenEnv's wire by
itself: `reset` and `step` as JSON over one WebSocket, which is the session."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from rayzero.services.schema.plain import is_figure

MAX_BYTES = 64 * 2**20
"""Of one answer."""
PATIENCE_S = 30.0
AGAIN_S = 0.2
"""Between two tries at a server that has no session free."""
THE_MODELS = ("VALIDATION_ERROR", "EXECUTION_ERROR")
"""Errors of a step that the model sees, as those of any tool."""
NO_OBSERVATION = ("done", "reward", "metadata")


class OpenEnvBroken(BaseException):
    """The server failed. No `Exception`: what a tool raises is shown to the model, and this is not the model's."""


class OpenEnvSession:
    """One, from its connection to its end."""

    def __init__(
        self,
        url: str,
        action: str | None = None,
        observation: str | None = None,
        options: Mapping[str, Any] | None = None,
        columns: Sequence[str] = (),
        reward: Literal["sum", "last"] = "sum",
    ) -> None:
        """As `OpenEnvEnvironment` has them.

        Raises:
            ValueError: there is no such server.
        """
        self.done = False
        self.turn_reward: float | None = None
        self._url, self._observation, self._columns = url.rstrip("/"), observation, columns
        self._options, self._sums = dict(options or {}), reward == "sum"
        self._reward: float | None = None
        self._num_steps = 0
        self._had_answer = False
        self._socket: Any = None
        self._connect()
        self._schema = self._read_schema()
        self._field = action if action is not None else self._only_field()

    def reset(self, seed: int, **row: Any) -> str:
        """A new episode; what the server says first."""
        self.done, self._num_steps = False, 0
        given = {name: row[name] for name in self._columns if name in row}
        answer = self._ask("reset", {"seed": seed % 2**31, **self._options, **given})
        self._reward = None  # a reset earns nothing
        return self._shown(answer)

    def get_reward(self) -> float | None:
        """The sum of the steps' rewards, or the last one, 0 before the first; None: no step has one."""
        return 0.0 if self._reward is None and not self._num_steps else self._reward

    def _step(self, action: Mapping[str, Any]) -> str:
        answer = self._ask("step", dict(action))
        self._num_steps += 1
        reward = answer.get("reward")
        if is_figure(reward) or isinstance(reward, bool):
            self.turn_reward = float(reward)
            self._reward = self.turn_reward + (self._reward or 0.0 if self._sums else 0.0)
        self.done = answer.get("done") is True
        return self._shown(answer)

    def _shown(self, answer: Mapping[str, Any]) -> str:
        """An observation as text: the part that the recipe names; the only text in it; or all of it, as JSON."""
        value: Any = answer.get("observation")
        if self._observation is not None:
            for name in self._observation.split("."):
                value = value.get(name) if isinstance(value, Mapping) else None
        elif isinstance(value, Mapping):
            value = {name: each for name, each in value.items() if name not in NO_OBSERVATION}
            if len(value) == 1 and isinstance(text := next(iter(value.values())), str):
                value = text
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def _ask(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """The answer to one message. A server without a free session is asked again, as long as the caller waits."""
        from websockets.exceptions import ConnectionClosed

        while True:
            try:
                self._socket.send(json.dumps({"type": kind, "data": data}))
                answer = json.loads(self._socket.recv())
                content = dict(answer.get("data") or {})
            except (ConnectionClosed, OSError, ValueError, AttributeError, TypeError) as error:
                raise OpenEnvBroken(f"the server {self._url} did not answer {kind}: {error}") from None
            if answer.get("type") != "error":
                self._had_answer = True
                return content
            code = content.get("code")
            if code in THE_MODELS and kind == "step":
                raise ValueError(_why(content))
            if code != "CAPACITY_REACHED" or self._had_answer:
                raise OpenEnvBroken(f"the server {self._url} answered {kind} with {code}: {_why(content)}")
            self._socket.close()
            time.sleep(AGAIN_S)
            self._connect()

    def _connect(self) -> None:
        try:
            from websockets.exceptions import WebSocketException
            from websockets.sync.client import connect
        except ImportError as error:
            raise ValueError(f"websockets cannot be imported ({error}): pip install websockets") from None
        address = f"ws{self._url.removeprefix('http')}/ws"
        try:
            self._socket = connect(address, open_timeout=PATIENCE_S, max_size=MAX_BYTES, proxy=self._proxy())
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ValueError(f"no OpenEnv server answers at {self._url} ({error})") from None

    def _proxy(self) -> Literal[True] | None:
        """None for this machine, which a proxy could not reach."""
        return None if urlsplit(self._url).hostname in ("127.0.0.1", "localhost", "::1") else True

    def _read_schema(self) -> dict[str, Any]:
        """Of an action; empty where the server has none to show."""
        handlers = [urllib.request.ProxyHandler({})] if self._proxy() is None else []
        try:
            with urllib.request.build_opener(*handlers).open(f"{self._url}/schema", timeout=PATIENCE_S) as answer:
                schema = json.loads(answer.read(MAX_BYTES))["action"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return schema if isinstance(schema, dict) else {}

    def _fields(self) -> dict[str, Any]:
        return {name: each for name, each in self._schema.get("properties", {}).items() if name != "metadata"}

    def _only_field(self) -> str | None:
        """The one field that an action must have, or may have."""
        fields = self._fields()
        for names in ([name for name in self._schema.get("required", ()) if name in fields], list(fields)):
            if len(names) == 1:
                return str(names[0])
        return None


class OpenEnvTurns(OpenEnvSession):
    """Takes whole turns."""

    def act(self, turn: str) -> str:
        """Take a step.

        Args:
            turn: All that the model said.
        """
        return self._step(self._action(turn.strip()))

    def _action(self, text: str) -> dict[str, Any]:
        """A turn that is a JSON object is the action; any other is the value of its field."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
        if self._field is None:
            raise ValueError(f"an action is a JSON object with {', '.join(self._fields()) or 'its fields'}")
        kind = self._fields().get(self._field, {}).get("type", "string")
        return {self._field: text if kind == "string" or value is None else value}


class OpenEnvTools(OpenEnvSession):
    """Offers the server's tools; where it has none, its step as one."""

    def offered_tools(self) -> list[dict[str, Any]]:
        """Their JSON schemas."""
        if not self._has_tools():
            parameters = {**self._schema, "properties": self._fields()} if self._schema else _NOTHING
            return [_tool("step", str(self._schema.get("description") or "Take a step."), parameters)]
        found = self._ask("step", {"type": "list_tools"}).get("observation", {}).get("tools", [])
        return [
            _tool(each["name"], each.get("description") or "", each.get("input_schema") or _NOTHING) for each in found
        ]

    def call_tool(self, name: str, arguments: dict[str, Any]) -> str:
        """The answer of one."""
        if self._has_tools():
            return self._step({"type": "call_tool", "tool_name": name, "arguments": arguments})
        return self._step(arguments)

    def _has_tools(self) -> bool:
        fields = self._fields()
        return "tool_name" in fields or not fields


_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


def _tool(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": dict(parameters)}
    return {"type": "function", "function": function}


def _why(content: Mapping[str, Any]) -> str:
    errors = content.get("errors")
    more = f": {json.dumps(errors, default=str)[:1000]}" if errors else ""
    return f"{content.get('message', 'it did not say why')}{more}"
