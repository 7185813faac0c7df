"""What a model acts in: its tools, the limits of an episode, and the workers that run it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from rayzero.services.schema.config.base import Section
from rayzero.services.schema.config.function_name import FunctionName
from rayzero.services.schema.config.sandbox import SandboxSettings

Truncated = Literal["keep", "zero", "drop"]
Malformed = Literal["observe", "end", "mask"]

BUILT_IN_TOOLS = ("calculator", "python")
"""Tools that need no code of the user's."""


def _is_tool(name: str) -> str:
    if ":" not in name and name not in BUILT_IN_TOOLS:
        raise ValueError(f"{name!r} is no tool: write module:function, or one of {', '.join(BUILT_IN_TOOLS)}")
    return name


ToolName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?$"), AfterValidator(_is_tool)]
"""`module:function`, or a built-in tool."""


class EpisodeLimits(Section):
    """What one episode may use. Each limit ends it under a name of its own, and `truncated` says what that is worth."""

    turns: int = Field(default=8, ge=1, le=1000)
    """Times that the model speaks. The tools of the last turn are still called. Ends as `max_turns`. An agent that asks
    for more is refused, with the code `episode_max_turns`."""
    turn_tokens: int | None = Field(default=None, ge=1)
    """Sampled in one turn. Empty: rollout.sampling.max_tokens. Ends as `max_tokens`."""
    episode_tokens: int | None = Field(default=None, ge=1)
    """Sampled and observed in all turns together. Empty: what rollout.max_model_tokens leaves. Ends as `max_tokens`."""
    tool_calls: int = Field(default=32, ge=1)
    """In all turns together. Ends as `max_tool_calls`. An agent, which calls its tools by itself, is refused the next
    turn after so many calls, with the code `episode_max_tool_calls`."""
    start_s: float = Field(default=60.0, gt=0, le=3600)
    """The environment to be made and reset; an agent, until it first asks for a turn. Longer is an error of the
    environment, and tried again elsewhere."""
    step_s: float = Field(default=30.0, gt=0, le=3600)
    """One answer of the environment, get_reward included; an agent, between two turns and after the last. Ends as
    `step_deadline`; its process is killed."""
    episode_s: float = Field(default=300.0, gt=0, le=36000)
    """The whole episode, the engine's time included. Ends as `episode_deadline`; its process is killed."""


class PythonLimits(EpisodeLimits):
    """What one episode of a Python class may use."""

    observation_chars: int = Field(default=4000, ge=16)
    """Of one observation; of a longer one the middle is cut out, and the cut marked. Ends nothing."""


class EpisodeSettings(Section):
    """What every kind of environment has."""

    limits: EpisodeLimits = EpisodeLimits()
    """What one episode may use."""
    truncated: Truncated = "keep"
    """An episode that a limit ended. `keep`: judged as it stands; where the environment was killed and cannot say its
    reward, that is an error. `zero`: its reward is 0. `drop`: it is not trained on."""
    tool_parser: str = Field(default="auto", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """What reads tool calls out of a turn. `auto`: what the model's tokenizer says. `text`: nothing does; every turn,
    whole, goes to the class's one method, which takes a text and gives the answer, or None when it is over, or to the
    agent: for small models. `hermes`, or any of vLLM's tool parsers by its name."""
    num_workers: int = Field(default=1, ge=1)
    """Environment workers to start with."""
    min_workers: int = Field(default=1, ge=1)
    """`rayzero scale` does not go below."""
    max_workers: int = Field(default=64, ge=1)
    """`rayzero scale` does not go above."""
    num_cpus_per_worker: float = Field(default=1.0, gt=0)
    """CPUs that each asks a Ray cluster for."""
    concurrent_episodes: int = Field(default=32, ge=1, le=4096)
    """Episodes a worker runs side by side, each in a process of its own. Synchronous runs deal theirs out by position
    alone."""
    memory_bytes: int = Field(default=2 * 2**30, ge=32 * 2**20)
    """What the process of one episode may allocate, and each that it starts."""
    environment: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], ...] = ()
    """Environment variables that an episode's process gets although they look like secrets (`SEARCH_API_KEY`)."""

    @model_validator(mode="after")
    def _within_bounds(self) -> EpisodeSettings:
        if not self.min_workers <= self.num_workers <= self.max_workers:
            raise ValueError(
                f"num_workers ({self.num_workers}) must lie within min_workers ({self.min_workers}) and "
                f"max_workers ({self.max_workers})"
            )
        if self.limits.episode_s < self.limits.step_s:
            raise ValueError(
                f"limits.episode_s ({self.limits.episode_s:g}) is shorter than limits.step_s "
                f"({self.limits.step_s:g}): no step could reach its own limit"
            )
        return self


class PythonEnvironment(EpisodeSettings):
    """A Python class, as TRL's `environment_factory` has it, or functions alone, as TRL's `tools`."""

    kind: Literal["python"] = "python"
    limits: PythonLimits = PythonLimits()
    """What one episode may use."""
    malformed: Malformed = "observe"
    """A tool call that cannot be read. `observe`: the model sees what is wrong, and goes on. `end`: the episode ends as
    `parse_error`. `mask`: as `observe`, and the turn is context that is not trained on."""
    factory: FunctionName | None = None
    """`module:Class`, made anew for every episode: `reset(**row)` returns what is appended to the prompt, or None;
    every other public method is a tool, described by its docstring and its types; `get_reward()`, if it has one, gives
    the reward at the end; an attribute `done` that is true ends the episode, and `turn_reward`, if it is set, says what
    the turn was worth (`learner.credit`). Empty: there are `tools` alone."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the class."""
    tools: tuple[ToolName, ...] = ()
    """Further tools: `module:function`, or built in: `calculator`, and `python`, which runs programs in the sandbox."""
    sandbox: SandboxSettings = SandboxSettings()
    """Where the tool `python` runs its programs, and what one may use; its time limit is one call's."""
    preload: bool = True
    """Import the modules of `factory` and `tools` once, before processes are forked. Turn off for modules that start
    threads or open connections when imported: each episode then imports them anew."""

    @model_validator(mode="after")
    def _offers_something(self) -> PythonEnvironment:
        if self.factory is None and not self.tools:
            raise ValueError("give a factory (module:Class), or tools")
        if self.factory is None and self.tool_parser == "text":
            raise ValueError("tool_parser: text gives every turn to a method of the factory: give one")
        names = Counter(name.rpartition(":")[2] for name in self.tools)
        for name, number in names.items():
            if number > 1:
                raise ValueError(f"tools: {number} are called {name}: the model could not tell them apart")
        return self


class AgentEnvironment(EpisodeSettings):
    """An agent: a program of its own that asks the model over OpenAI's API, and calls its tools by itself."""

    kind: Literal["agent"] = "agent"
    function: FunctionName | None = None
    """`module:function`, async or not, called once an episode with two arguments: the row (a dict: its columns,
    `prompt` as a list of messages, `answer`, `seed`) and the policy (`.base_url`, `.api_key`, `.model`: what an OpenAI
    client takes). It returns the reward, or None where the rubric alone judges. Either this or `command`."""
    command: tuple[str, ...] = Field(default=(), max_length=1000)
    """A program and its arguments, no shell. It gets the model as OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL, and
    the row as one line of JSON on its standard input. A last line `{"reward": 1.0}` on its standard output is the
    reward; a status other than 0 is an error."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the function."""
    preload: bool = True
    """Import the function's module once, before processes are forked. Turn off for one that starts threads or opens
    connections when imported: each episode then imports it anew."""

    @model_validator(mode="after")
    def _is_one_program(self) -> AgentEnvironment:
        if (self.function is None) == (not self.command):
            raise ValueError("give a function (module:name) or a command (a list of words), one of the two")
        if self.command and (not self.command[0] or any("\0" in word for word in self.command)):
            raise ValueError("command: its first word is the program's name, and no word may hold a NUL")
        if self.command and self.arguments:
            raise ValueError("arguments are a function's: write those of a command behind its first word")
        return self


class VerifiersEnvironment(EpisodeSettings):
    """A v1 taskset of the package verifiers 0.4: its agents ask the model over OpenAI's API, its rewards are the
    episode's. It runs in a Python of its own, which has verifiers; rayzero's need not."""

    kind: Literal["verifiers"] = "verifiers"
    python: str = Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")
    """The Python that has verifiers, `venv/bin/python`: made with `python3 -m venv venv` and `venv/bin/pip install
    verifiers==0.4.0`. The Python of every node that has environment workers, at the same path."""
    taskset: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_./@-]{0,127}$")
    """Its id, as verifiers has it: the name of the module that holds it."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Settings of the taskset (verifiers' `--env.taskset.…`)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of verifiers' environment (its `--env.…`): `id`, and for each of its agents, by role, `harness`,
    `runtime`, `client`, …. Without them each agent is a conversation with the task's tools, on this machine, of at most
    `limits.turns` turns: `{agent: {harness: {id: bash}, runtime: {type: docker}}}` gives it a shell."""
    folder: str | None = None
    """Where the taskset's module lies, if it is neither installed in that Python nor in the current directory."""
    preload: bool = True
    """Import verifiers and the taskset once, before processes are forked. Turn off for a taskset that starts threads or
    opens connections when imported: each episode then imports all of it anew, which takes seconds."""

    @property
    def module(self) -> str:
        """What verifiers imports for the taskset: `owner/my-taskset@1.0` is `my_taskset`."""
        return self.taskset.rpartition("/")[2].partition("@")[0].replace("-", "_").lower()

    @model_validator(mode="after")
    def _says_each_thing_once(self) -> VerifiersEnvironment:
        if "taskset" in self.options:
            raise ValueError("options.taskset: write it as taskset and arguments")
        if "id" in self.arguments:
            raise ValueError("arguments.id: write it as taskset")
        if "." in self.module:
            raise ValueError(
                f"taskset: {self.taskset}: verifiers imports one module by its name: name its folder in folder"
            )
        return self


class TextArenaEnvironment(EpisodeSettings):
    """A game of textarena that one player plays, in whole turns. What it draws, it draws by the episode's seed."""

    kind: Literal["textarena"] = "textarena"
    limits: PythonLimits = PythonLimits()
    """What one episode may use."""
    game: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """As textarena registers it: `GuessTheNumber-v0`, `TowerOfHanoi-v0`, `FrozenLake-v0`."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Options of the game, e.g. `{max_number: 10}`."""
    packages: str | None = None
    """A folder with textarena in it, where this Python has none: `pip install --target FOLDER textarena`. It stands
    behind all that is installed."""

    def as_class(self) -> PythonEnvironment:
        """The class that plays it."""
        shared = {name: getattr(self, name) for name in EpisodeSettings.model_fields}
        return PythonEnvironment.model_validate(
            {
                **shared,
                "factory": "rayzero.rewards.environments.textarena_game:TextArenaGame",
                "arguments": {**self.arguments, "game": self.game, "packages": self.packages},
                "tool_parser": "text",
            }
        )

    @model_validator(mode="after")
    def _has_no_tools(self) -> TextArenaEnvironment:
        if self.tool_parser not in ("auto", "text"):
            raise ValueError(f"tool_parser: {self.tool_parser}: a game reads whole turns, leave it out")
        if taken := {"game", "packages"} & self.arguments.keys():
            raise ValueError(f"arguments.{min(taken)}: write it beside arguments")
        return self


class OpenEnvEnvironment(EpisodeSettings):
    """A server of OpenEnv, each episode in a session of its own: in whole turns with `tool_parser: text`; else the
    model calls the server's tools, or, where it has none, its one tool `step`."""

    kind: Literal["openenv"] = "openenv"
    limits: PythonLimits = PythonLimits()
    """What one episode may use."""
    malformed: Malformed = "observe"
    """A tool call that cannot be read: as of a Python class."""
    url: str | None = Field(default=None, pattern=r"^https?://[^\s/?#]+[^\s?#]*$")
    """Of a server that is there: `http://host:8000`. Either this or `command`. It must hold as many sessions as all
    workers' `concurrent_episodes` together: an episode waits for one for `limits.start_s`."""
    command: tuple[str, ...] = Field(default=(), max_length=1000)
    """A program and its arguments, no shell, which each environment worker starts; `{port}` in a word is the port on
    which it is to serve loopback (also in the variable PORT). One that ends is started again with the next episode."""
    action: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*$")
    """Field of an action that takes a whole turn. Empty: the only one that the server's schema demands. A turn that is
    a JSON object is an action as it stands."""
    observation: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*(\.\w+)*$")
    """Field of an observation that the model sees. Empty: the only one, where that is a text; else all, as JSON."""
    reset: dict[str, Any] = Field(default_factory=dict)
    """What its reset is given besides a seed."""
    columns: tuple[str, ...] = ()
    """Columns of the row that its reset is given, too."""
    reward: Literal["sum", "last"] = "sum"
    """The episode's reward: the sum of its steps', or the last one."""

    def as_class(self, url: str = "") -> PythonEnvironment:
        """The class that speaks to it."""
        shared = {name: getattr(self, name) for name in EpisodeSettings.model_fields}
        name = "OpenEnvTurns" if self.tool_parser == "text" else "OpenEnvTools"
        arguments = {
            "url": url, "action": self.action, "observation": self.observation, "options": self.reset,
            "columns": list(self.columns), "reward": self.reward,
        }  # fmt: skip
        factory = f"rayzero.rewards.environments.openenv_session:{name}"
        return PythonEnvironment.model_validate(
            {**shared, "factory": factory, "arguments": arguments, "malformed": self.malformed}
        )

    @model_validator(mode="after")
    def _is_one_server(self) -> OpenEnvEnvironment:
        if (self.url is None) == (not self.command):
            raise ValueError("give a url (http://host:port) or a command (a list of words), one of the two")
        if self.command and not any("{port}" in word for word in self.command):
            raise ValueError("command: no word has {port} in it: the server must serve where it is asked")
        if self.action is not None and self.tool_parser != "text":
            raise ValueError("action takes whole turns: it needs tool_parser: text")
        return self


def _kind(given: Any) -> str:
    kind = given.get("kind", "python") if isinstance(given, Mapping) else getattr(given, "kind", "python")
    return str(kind)


AnyEnvironment = Annotated[
    Annotated[PythonEnvironment, Tag("python")]
    | Annotated[AgentEnvironment, Tag("agent")]
    | Annotated[VerifiersEnvironment, Tag("verifiers")]
    | Annotated[OpenEnvEnvironment, Tag("openenv")]
    | Annotated[TextArenaEnvironment, Tag("textarena")],
    Discriminator(_kind),
]
"""What `environment` in a recipe may be; without a `kind` it is a Python class."""
