"""What runs in the process of one episode of a taskset of verifiers, in a Python that has verifiers and need not have
rayzero: nothing of rayzero is imported here.

    {n, op: run, row, seed, policy, label} -> {n, reward, failure, end, metrics}

The taskset's agents ask the episode's endpoint, through verifiers' own interception; tokens are the session's alone.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import itertools
import json
import math
import os
import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

TASK = "verifiers_task"
"""The column of a row that holds its task: verifiers' TaskData as JSON."""
KEY = "OPENAI_API_KEY"
CHAT = "null"
"""verifiers' harness that has a conversation and calls the task's tools, and gives the model no shell."""
MAX_METRICS = 64
_SUBREAPER = 36
_ENDS = {
    "max_turns": "max_turns",
    "max_input_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_total_tokens": "max_tokens",
}
"""verifiers' stop conditions that are limits, as rayzero calls them."""


class NotATask(Exception):
    """A row without a task, or an environment that cannot be trained in; the message says what."""


def episode_host(spec: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Runs one episode. `spec`: taskset, arguments, options, max_turns, folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1)  # what servers of tools leave behind comes here, and ends with this
    environment = _environment(spec)
    _keep_within(spec["folder"])
    _chat_in_this_process()

    def run(item: Mapping[str, Any]) -> dict[str, Any]:
        random.seed(item["seed"])
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(item["seed"] % 2**32)
        os.environ.update(_variables(item["policy"]))
        return {"n": item["n"], **asyncio.run(_episode(environment, item["row"], item["policy"]))}

    return run


def print_rows(text: str) -> None:
    """The tasks of a taskset as rows, one a line: {messages, answer (empty where the task has none: it is its own
    judge), verifiers_task}; or, last, {error}."""
    spec = json.loads(text)
    rows = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a taskset prints is no row
    try:
        for row in _rows(spec):
            rows.write(json.dumps(row) + "\n")
    except Exception as error:
        rows.write(json.dumps({"error": f"{type(error).__name__}: {error}"[:2000]}) + "\n")
    rows.close()


def _rows(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    from verifiers.v1.utils.loaders import load_taskset, taskset_config_type

    settings = taskset_config_type(spec["taskset"]).model_validate({**spec["arguments"], "id": spec["taskset"]})
    for task in itertools.islice(load_taskset(settings), spec["first"], spec["first"] + spec["number"]):
        answer = getattr(task.data, "answer", None)
        yield {
            "messages": _messages(task.data),
            "answer": "" if answer is None else str(answer),
            TASK: task.data.model_dump_json(),
        }


def _messages(data: Any) -> list[dict[str, str]]:
    """As the chat harness begins: the session's prompt is what its first request repeats."""
    from verifiers.v1.types import content_text

    messages = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    if data.prompt is None:  # the taskset's own user opens the conversation
        return [*messages, {"role": "user", "content": data.description or data.name or "(begins)"}]
    if isinstance(data.prompt, str):
        return [*messages, {"role": "user", "content": data.prompt}]
    return [*messages, *({"role": each.role, "content": content_text(each.content)} for each in data.prompt)]


def _environment(spec: Mapping[str, Any]) -> Any:
    """verifiers' environment of the taskset. Every agent in it is played in this process or on this machine, by a
    conversation with the task's tools, but for what taskset or options say: verifiers' own default is a shell, in a
    sandbox of a service."""
    from verifiers.v1.configs.agent import AgentConfig
    from verifiers.v1.utils.loaders import (
        default_harness_id,
        env_config_type,
        load_environment,
        resolve_env_config,
        taskset_class,
    )

    name, options = spec["taskset"], dict(spec["options"])
    taskset_class(name)  # its own error: those below take one that is not there for a plain one
    has_own = default_harness_id(name) == name
    for role, field in env_config_type(name, options.get("id") or "").model_fields.items():
        if not isinstance(field.default, AgentConfig):
            continue
        given, said = dict(options.get(role) or {}), field.default.model_fields_set
        if "harness" not in said and not has_own:
            given.setdefault("harness", {"id": CHAT})
        if "runtime" not in said:
            given.setdefault("runtime", {"type": "subprocess"})
        if "max_turns" not in said:
            given.setdefault("max_turns", spec["max_turns"])
        options[role] = given
    options.setdefault("interception", {"type": "server"})
    return load_environment(resolve_env_config({**options, "taskset": {**spec["arguments"], "id": name}}))


async def _episode(environment: Any, row: Mapping[str, Any], policy: Mapping[str, str]) -> dict[str, Any]:
    from verifiers.v1.clients import EvalClientConfig, ModelContext

    text = row.get(TASK)
    if not isinstance(text, str):
        raise NotATask(f"the row has no column {TASK}: take rows from rayzero.services.data.tasks.verifiers:tasks")
    task_class = type(environment.taskset).task_type()
    data = task_class.data_type().model_validate_json(text)
    task = task_class(data, environment.config.taskset.task)
    client = EvalClientConfig(base_url=policy["base_url"], api_key_var=KEY)
    async with environment.serving():
        episode = await environment.run_episode(task, ModelContext(model=policy["model"], client=client))
    return outcome_of(episode, policy["base_url"])


def outcome_of(episode: Any, base_url: str) -> dict[str, Any]:
    """What an episode of verifiers came to: the mean reward of the agents that are trained, with what each reward and
    metric was by name."""
    trained = [trace for trace in episode.traces if trace.agent.trainable]
    for trace in episode.traces:
        client = trace.agent.config.client
        if not trace.agent.trainable and client is not None and client.base_url == base_url:
            role = trace.agent.name
            raise NotATask(
                f"its agent {role} is not trained, and asked the model that is: give it a client and a model of "
                f"its own in environment.options.{role}"
            )
    if not episode.ok or not trained:
        return {"reward": None, "failure": _failure(episode), "end": None, "metrics": {}}
    given = [trace.reward for trace in trained if any(each is not None for each in trace.rewards.values())]
    ends = [_ENDS[trace.stop_condition] for trace in trained if trace.stop_condition in _ENDS]
    if any(trace.is_timeout for trace in trained):
        ends.insert(0, "episode_deadline")
    return {
        "reward": sum(given) / len(given) if given else None,
        "failure": "",
        "end": ends[0] if ends else None,
        "metrics": _metrics(trained),
    }


def _failure(episode: Any) -> str:
    errors = [*episode.errors, *(error for trace in episode.traces for error in trace.errors)]
    return f"{errors[-1].type}: {errors[-1].message}"[-1000:] if errors else "it failed, and did not say why"


def _metrics(traces: list[Any]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for trace in traces:
        rewards = {f"reward/{name}": each.score for name, each in trace.rewards.items() if each is not None}
        for name, value in {**trace.metrics, **rewards}.items():
            if isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(str(name)[:100], []).append(float(value))
    return {name: sum(values) / len(values) for name, values in itertools.islice(found.items(), MAX_METRICS)}


def _variables(policy: Mapping[str, str]) -> dict[str, str]:
    """Where OpenAI's clients look for the model, past any proxy, which could not reach this address."""
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    past = ",".join(filter(None, (known, urlsplit(policy["base_url"]).hostname, "127.0.0.1,localhost")))
    return {
        "OPENAI_BASE_URL": policy["base_url"],
        KEY: policy["api_key"],
        "OPENAI_MODEL": policy["model"],
        "NO_PROXY": past,
        "no_proxy": past,
    }


def _keep_within(folder: str) -> None:
    """The folders of its programs lie where the worker clears up: an episode that is killed cannot."""
    from verifiers.v1.runtimes import subprocess as programs

    programs.CACHE_DIR = Path(folder)


def _chat_in_this_process() -> None:
    """verifiers starts a program for each conversation, and has uv fetch what it imports from PyPI. All of that is
    imported here already, and this process is the episode's own: the program's `main` is run in it."""
    from verifiers.v1.dialects.chat import message_to_wire
    from verifiers.v1.harnesses.null.harness import NullHarness
    from verifiers.v1.harnesses.utils import compaction, core, mcp
    from verifiers.v1.runtimes import ProgramResult
    from verifiers.v1.runtimes.subprocess import SubprocessRuntime

    parts = (mcp, compaction, core)  # one source file where verifiers starts it
    names = {name: value for part in parts for name, value in vars(part).items() if not name.startswith("__")}
    for part in parts:
        vars(part).update(names)
    # The endpoint is this machine's, without TLS: a thousand certificates would be read for every turn.
    core.certifi = SimpleNamespace(where=lambda: False)
    setup, launch = NullHarness.setup, NullHarness.launch

    async def prepare(harness: Any, runtime: Any) -> None:
        if not isinstance(runtime, SubprocessRuntime):
            await setup(harness, runtime)

    async def converse(
        harness: Any, ctx: Any, trace: Any, runtime: Any, endpoint: str, secret: str, urls: Any, data: Any,
        tool_interception_url: str | None = None,
    ) -> Any:  # fmt: skip
        if not isinstance(runtime, SubprocessRuntime):
            return await launch(harness, ctx, trace, runtime, endpoint, secret, urls, data, tool_interception_url)
        system, prompt = harness.resolve_prompt(data)
        servers = {name: {"url": url, "timeout": harness.config.tool_timeout} for name, url in urls.items()}
        given = argparse.Namespace(
            base_url=endpoint, api_key=secret, model=ctx.model, system_prompt=system or "",
            prompt=prompt if isinstance(prompt, str) else "", initial_messages_file="",
            mcp_config=json.dumps({"mcpServers": servers}) if servers else "",
            tool_interception_url=tool_interception_url or "", bash=False, compaction=False, summarize_at_tokens=None,
            edit=False, search=False, serper_key="",
        )  # fmt: skip
        if prompt is not None and not isinstance(prompt, str):
            with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
                json.dump([message_to_wire(message) for message in prompt], file)
            given.initial_messages_file = file.name  # `main` removes it
        core.parse_args = lambda: given
        try:
            await core.main()
        except SystemExit as end:
            return ProgramResult(exit_code=int(end.code or 0), stdout="", stderr="")
        except Exception:
            return ProgramResult(exit_code=1, stdout="", stderr=traceback.format_exc())
        return ProgramResult(exit_code=0, stdout="", stderr="")

    NullHarness.setup, NullHarness.launch = prepare, converse
