"""What runs in the process of one episode of an agent: starts the agent below itself, and waits for its end.

    {n, op: run, row, seed, policy, label} -> {n, reward, failure}

Whatever the agent does to itself, its memory or its output, this process outlives it and says how it ended.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from rayzero.rewards.children.fork_server import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, resolve
from rayzero.rewards.environments.agent_output import AgentStreams, end_the_rest
from rayzero.services.schema.plain import is_figure


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentSpec:
    """What an agent is started from; travels as pickle, from its own worker."""

    function: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    command: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedPolicy:
    """Where an agent finds the model: what OpenAI's clients take."""

    base_url: str
    api_key: str
    model: str


class NotAnAgent(Exception):
    """It cannot be started, or gave something else than a reward; the message says what."""


def agent_host(spec: AgentSpec) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Runs one agent.

    Raises:
        NotAnAgent: there is no such program, or the function cannot be called as an agent is.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # what an agent leaves behind comes here, to be ended
    function = None if spec.function is None else _checked(resolve(spec.function), spec)
    if spec.command and shutil.which(spec.command[0]) is None:
        where = "no such file here" if os.sep in spec.command[0] else "not found on the PATH"
        raise NotAnAgent(f"{spec.command[0]}: {where} ({os.getcwd()}), or not executable")

    def run(item: Mapping[str, Any]) -> dict[str, Any]:
        streams = AgentStreams(item["label"])
        row, policy = item["row"], ServedPolicy(**item["policy"])
        if function is None:
            ended = streams.supervise(_start_command(spec.command, row, policy, streams))
            reward, failure = _said(streams.last_line, ended)
        else:
            call = _call_of(function, spec.arguments, item, policy)
            ended = streams.supervise(_fork(call, streams, libc))
            reward, failure = _returned(streams.result, ended)
        end_the_rest()
        return {"n": item["n"], "reward": reward, "failure": failure}

    return run


def _checked(function: Any, spec: AgentSpec) -> Callable[..., Any]:
    if not callable(function):
        raise NotAnAgent(f"{spec.function} is a {type(function).__name__}: name a function")
    try:
        inspect.signature(function).bind({}, None, **spec.arguments)
    except TypeError as error:
        names = ", ".join(["row", "policy", *spec.arguments])
        raise NotAnAgent(f"{spec.function} cannot be called as an agent is, with ({names}): {error}") from None
    except ValueError:
        pass  # written in C: it says nothing of its parameters
    found: Callable[..., Any] = function
    return found


def _call_of(
    function: Callable[..., Any], arguments: Mapping[str, Any], item: Mapping[str, Any], policy: ServedPolicy
) -> Callable[[], Any]:
    def call() -> Any:
        random.seed(item["seed"])
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(item["seed"] % 2**32)
        os.environ.update(_environment(os.environ, policy))
        result = function(dict(item["row"]), policy, **arguments)
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result

    return call


async def _awaited(result: Any) -> Any:
    return await result


def _fork(call: Callable[[], Any], streams: AgentStreams, libc: ctypes.CDLL) -> int:
    """The agent as a process of its own, in this one's group; its id."""
    pid = os.fork()
    if pid:
        return pid
    reply: dict[str, Any] = {}
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        streams.enter()
        value = call()
        reply = {"reward": None if value is None else float(value)}
    except BaseException as error:
        reply = {"error": _text(error)}
        if not isinstance(error, MemoryError):
            traceback.print_exc()
    finally:
        streams.reply(json.dumps(reply).encode())
        os._exit(0)  # never back into the frames of the process that waits for it, nor to threads it left


def _start_command(command: Sequence[str], row: Mapping[str, Any], policy: ServedPolicy, streams: AgentStreams) -> int:
    """The program in this process's group; its id."""
    environment = _environment(os.environ, policy)
    with tempfile.TemporaryFile() as given:  # a pipe would wait for a program that reads nothing
        given.write(json.dumps(row, default=str).encode() + b"\n")  # of a date, say, what it looks like
        given.seek(0)
        process = subprocess.Popen(
            list(command), stdin=given, stdout=streams.write_out, stderr=streams.write_error, env=environment
        )
    process.returncode = 0  # waited for by its id: its destructor must not
    return process.pid


def _environment(environment: Mapping[str, str], policy: ServedPolicy) -> dict[str, str]:
    """An agent's: where OpenAI's clients look for the model, past any proxy, which could not reach this address."""
    host = urlsplit(policy.base_url).hostname or ""
    known = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    past = ",".join(filter(None, (known, host)))
    return {
        **environment,
        "OPENAI_BASE_URL": policy.base_url,
        "OPENAI_API_BASE": policy.base_url,  # of older clients
        "OPENAI_API_KEY": policy.api_key,
        "OPENAI_MODEL": policy.model,
        "NO_PROXY": past,
        "no_proxy": past,
    }


def _returned(result: bytes, ended: int) -> tuple[float | None, str]:
    """The reward that a function returned, and what went wrong."""
    try:
        reply = json.loads(result)
        if "error" in reply:
            return None, f"it raised {str(reply['error'])[:1000]}"
        return _reward(reply["reward"]), ""
    except NotAnAgent as error:
        return None, str(error)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None, f"its process {_how(ended)} before it returned"


def _said(last_line: str, ended: int) -> tuple[float | None, str]:
    """The reward in a program's last line, if there is one, and what went wrong."""
    if ended != 0:
        return None, f"it {_how(ended)}"
    try:
        line = json.loads(last_line)
    except (ValueError, RecursionError):
        return None, ""
    if not isinstance(line, Mapping) or "reward" not in line:
        return None, ""
    try:
        return _reward(line["reward"]), ""
    except NotAnAgent as error:
        return None, str(error)


def _reward(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, bool) and not is_figure(value):
        raise NotAnAgent(f"it gave the reward {value!r:.40}: give a finite number, or none")
    return float(value)


def _how(ended: int) -> str:
    return f"ended with status {ended}" if ended >= 0 else f"was killed by signal {-ended}"


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:2000]
    except Exception:  # a class of a user's may do anything in its __str__
        return type(error).__name__
