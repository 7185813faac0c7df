"""A stand-in of the package verifiers, as far as rayzero calls it: copied to `verifiers/__init__.py` in a folder that
an episode's process looks in. It has one agent, and a taskset that does what its tasks say."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

TASKSETS = ("my_tasks", "with_judge")


class AgentConfig:
    """What a role is played with."""

    def __init__(self, **given: Any) -> None:
        self.model_fields_set = set(given)
        self.given, self.client = given, None


class TaskData:
    """A row of the taskset."""

    def __init__(self, **given: Any) -> None:
        self.prompt, self.system_prompt, self.answer, self.harm, self.name, self.description = (
            None,
            None,
            None,
            "",
            "",
            "",
        )
        vars(self).update(given)

    @classmethod
    def model_validate_json(cls, text: str) -> TaskData:
        """As pydantic's."""
        return cls(**json.loads(text))

    def model_dump_json(self) -> str:
        """As pydantic's."""
        return json.dumps(vars(self))


class Task:
    """Data, and what may be done with it."""

    def __init__(self, data: TaskData, config: Any) -> None:
        self.data, self.config = data, config

    @classmethod
    def data_type(cls) -> type[TaskData]:
        """As verifiers'."""
        return TaskData


class Taskset:
    """Tasks without end."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def __iter__(self) -> Iterator[Task]:
        number = 0
        while True:
            print("a taskset may print")
            word = self.config.arguments.get("word", "play")
            yield Task(TaskData(prompt=f"{word} {number}", system_prompt="be brief", answer=number), None)
            number += 1

    @classmethod
    def task_type(cls) -> type[Task]:
        """As verifiers'."""
        return Task


class TasksetConfig:
    """Settings of the taskset."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments, self.task = arguments, None

    @classmethod
    def model_validate(cls, given: dict[str, Any]) -> TasksetConfig:
        """As pydantic's: refuses what it does not know."""
        if unknown := set(given) - {"id", "word"}:
            raise ValueError(f"{min(unknown)}: extra inputs are not permitted")
        return cls(given)


class SubprocessRuntime:
    """Where programs run."""


class NullHarness:
    """A conversation."""

    config = SimpleNamespace(tool_timeout=1.0)

    async def setup(self, runtime: Any) -> None:
        """Would have uv fetch what the program imports."""
        raise AssertionError("nothing may be fetched")

    async def launch(self, *arguments: Any) -> Any:
        """Would start the program."""
        raise AssertionError("no program may be started")

    def resolve_prompt(self, data: Any) -> tuple[Any, Any]:
        """Both apart."""
        return data.system_prompt, data.prompt


async def main() -> None:
    """Of the program that the harness starts: one turn."""
    given = core.parse_args()
    messages = [{"role": "system", "content": given.system_prompt}] if given.system_prompt else []
    body = {"model": given.model, "messages": [*messages, {"role": "user", "content": given.prompt}]}
    request = urllib.request.Request(
        f"{given.base_url}/chat/completions", data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {given.api_key}"},
    )  # fmt: skip
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        json.loads(answer.read())


class Env:
    """Of one agent."""

    def __init__(self, config: Any) -> None:
        self.config, self.taskset = config, Taskset(config.taskset)

    @contextlib.asynccontextmanager
    async def serving(self) -> Any:
        """Servers of tools would live here."""
        yield

    async def run_episode(self, task: Task, context: Any) -> Any:
        """One turn, and what the task says."""
        harness, harm = NullHarness(), task.data.harm
        key = os.environ[context.client.api_key_var]
        await harness.setup(SubprocessRuntime())
        ended = await harness.launch(
            context, None, SubprocessRuntime(), context.client.base_url, key, {}, task.data
        )  # fmt: skip
        errors = [SimpleNamespace(type="HarnessError", message=ended.stderr)] if ended.exit_code else []
        if harm == "hang":
            time.sleep(3600)
        if harm == "exit":
            os._exit(3)
        if harm == "raise":
            errors.append(SimpleNamespace(type="TaskError", message="planted"))
        config = self.config.roles["agent"]
        judge = self.config.taskset.arguments["id"] == "with-judge"
        trace = SimpleNamespace(
            agent=SimpleNamespace(trainable=not judge, name="judge" if judge else "agent",
                                  config=SimpleNamespace(client=context.client)),
            rewards={"right": SimpleNamespace(score=1.0), "unscored": None} if harm != "unscored" else {"right": None},
            reward=0.5, metrics={"length": 3.0, "odd": float("nan")}, errors=[],
            stop_condition="max_turns" if harm == "limit" else None, is_timeout=harm == "late",
        )  # fmt: skip
        assert config == {"harness": {"id": "null"}, "runtime": {"type": "subprocess"}, "max_turns": 3}
        return SimpleNamespace(ok=not errors, errors=errors, traces=[trace])


def taskset_class(name: str) -> type[Taskset]:
    """As verifiers'."""
    if name.replace("-", "_") not in TASKSETS:
        raise ModuleNotFoundError(f"taskset {name!r} not found")
    return Taskset


def _put(name: str, **content: Any) -> ModuleType:
    module = sys.modules.setdefault(name, ModuleType(name))
    vars(module).update(content)
    return module


def resolve_env_config(given: dict[str, Any]) -> Any:
    """As verifiers'."""
    assert given.pop("interception") == {"type": "server"}
    taskset = TasksetConfig.model_validate(given.pop("taskset"))
    return SimpleNamespace(taskset=taskset, roles=given)


_put(
    "verifiers.v1.utils.loaders",
    default_harness_id=lambda name: "bash",
    env_config_type=lambda name, env: SimpleNamespace(model_fields={"agent": SimpleNamespace(default=AgentConfig())}),
    load_environment=Env,
    load_taskset=Taskset,
    resolve_env_config=resolve_env_config,
    taskset_class=taskset_class,
    taskset_config_type=lambda name: TasksetConfig if taskset_class(name) else None,
)
_put("verifiers.v1.configs.agent", AgentConfig=AgentConfig)
_put("verifiers.v1.clients", EvalClientConfig=SimpleNamespace, ModelContext=SimpleNamespace)
_put("verifiers.v1.types", content_text=str)
_put("verifiers.v1.dialects.chat", message_to_wire=vars)
_put("verifiers.v1.harnesses.null.harness", NullHarness=NullHarness)
core = _put("verifiers.v1.harnesses.utils.core", main=main, parse_args=None)
_put("verifiers.v1.harnesses.utils", core=core, mcp=ModuleType("mcp"), compaction=ModuleType("compaction"))
_put("verifiers.v1.runtimes", ProgramResult=SimpleNamespace)
_put("verifiers.v1.runtimes.subprocess", SubprocessRuntime=SubprocessRuntime)
sys.modules["verifiers.v1.runtimes"].subprocess = sys.modules["verifiers.v1.runtimes.subprocess"]  # type: ignore[attr-defined]
for parent in ("", ".configs", ".utils", ".dialects", ".harnesses", ".harnesses.null"):
    _put(f"verifiers.v1{parent}")
