"""Actors that do nothing, in no time or after a while: what is left is the control plane's own cost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.controller import Controller
from services.evaluation import Evaluation, Evaluator
from services.fleet import Fleet
from services.group_buffer import GroupBuffer
from services.group_carrier import GroupCarrier
from services.schema.causes import DropReason
from services.schema.config.recipe import Recipe
from services.schema.interfaces import RewardWorker, RolloutWorker, SftExample
from services.schema.messages import (
    Completion,
    Group,
    GroupCompletions,
    GroupRequest,
    Prompt,
    Rendezvous,
    UpdateResult,
    Verdict,
    VerdictStatus,
    VersionSpan,
    WeightManifest,
    WeightReceipt,
)
from services.weight_sync import WeightSync

Seconds = Callable[[], float]
"""How long the next one takes."""

NUM_TOKENS = 64


class _InProcess:
    """What an actor says of itself that lives in this process."""

    pid: int | None = None
    node = ""


class NullEngine(_InProcess):
    """Completes every group after `seconds()`; several groups take no longer than one."""

    metrics_target = ""

    def __init__(self, name: str, seconds: Seconds) -> None:
        self.name, self._seconds = name, seconds
        self._version = 0
        self.generated_tokens = 0
        self._running: dict[int, asyncio.Event] = {}
        self.busy_s = 0.0
        """Seconds of groups that are done, side by side ones counted each."""

    async def generate(self, request: GroupRequest) -> GroupCompletions:
        """The same completion G times."""
        begun = self._version
        share = 1.0
        if (seconds := self._seconds()) > 0:
            share = await self._work(request.group_id, seconds) / seconds
            self.busy_s += share * seconds
        completion = Completion(
            text="42",
            token_ids=TOKENS,
            rollout_logprobs=LOGPROBS,
            version_spans=(VersionSpan(start=0, end=NUM_TOKENS, policy_version=begun),),
            finish_reason="stop",
        )
        self.generated_tokens += round(share * NUM_TOKENS * request.sampling.num_completions)
        return GroupCompletions(
            group_id=request.group_id,
            prompt_token_ids=TOKENS,
            prompt_text="",
            completions=(completion,) * request.sampling.num_completions,
            worker=self.name,
            seconds=0.0,
        )

    async def abort(self, group_id: int) -> None:
        """At once."""
        if group_id in self._running:
            self._running[group_id].set()

    async def _work(self, group_id: int, seconds: float) -> float:
        """Take so long, unless aborted; returns how long it took."""
        loop = asyncio.get_running_loop()
        begun, ended = loop.time(), asyncio.Event()
        self._running[group_id] = ended
        timer = loop.call_later(seconds, ended.set)
        try:
            await ended.wait()
        finally:
            timer.cancel()
            del self._running[group_id]
        return min(seconds, loop.time() - begun)

    async def logprobs(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """All zero."""
        return np.zeros(len(token_ids), dtype=np.float32)

    async def join_transfer(self, rendezvous: Rendezvous, rank: int) -> None:
        """At once."""

    async def receive_weights(self, manifest: WeightManifest) -> None:
        """At once."""

    async def apply_weights(self, policy_version: int) -> WeightReceipt:
        """At once."""
        self._version = policy_version
        return WeightReceipt(worker=self.name, policy_version=policy_version, num_tensors=0, receive_s=0.0, pause_s=0.0)

    async def sleep(self) -> None:
        """It has no GPU."""

    async def wake(self) -> None:
        """It has no GPU."""

    async def shutdown(self) -> None:
        """Nothing to end."""


class NullRewards(_InProcess):
    """Half of a group right, half wrong."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def score(self, prompt: Prompt, prompt_text: str, completions: Sequence[Completion]) -> tuple[Verdict, ...]:
        """One verdict a completion."""
        return tuple(VERDICTS[index % 2] for index in range(len(completions)))

    async def shutdown(self) -> None:
        """Nothing to end."""


class NullLearner(_InProcess):
    """Makes every update in `seconds()`."""

    revivals = 0

    def __init__(self, seconds: Seconds) -> None:
        self._seconds = seconds
        self.trained_tokens = 0

    async def update(self, groups: Sequence[Group], policy_version: int) -> UpdateResult:
        """Counts tokens."""
        if (seconds := self._seconds()) > 0:
            await asyncio.sleep(seconds)
        self.trained_tokens += sum(group.num_tokens for group in groups)
        return UpdateResult(policy_version=policy_version, metrics={})

    async def logprobs(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """All zero."""
        return np.zeros(len(token_ids), dtype=np.float32)

    async def sft_step(self, examples: Sequence[SftExample], learning_rate: float) -> Mapping[str, float]:
        """Learns nothing."""
        return {}

    async def end_sft(self) -> None:
        """At once."""

    async def open_transfer(self, num_receivers: int) -> Rendezvous:
        """Nowhere."""
        return Rendezvous(host="127.0.0.1", port=1, world_size=num_receivers + 1)

    async def accept_transfer(self) -> None:
        """At once."""

    async def abort_transfer(self) -> None:
        """At once."""

    async def prepare_weights(self, policy_version: int) -> WeightManifest:
        """No weights."""
        return WeightManifest(policy_version=policy_version, tensors=(), bucket_bytes=())

    async def broadcast_weights(self) -> None:
        """At once."""

    async def save_checkpoint(self, directory: str) -> None:
        """Nothing to save."""

    async def load_checkpoint(self, directory: str) -> None:
        """Nothing to load."""

    async def shutdown(self) -> None:
        """Nothing to end."""


class _Prompts:
    """The same prompt for ever."""

    def next(self) -> Prompt:
        return PROMPT

    def learn(self, group: Group) -> None:
        pass

    def counts(self) -> Mapping[str, int]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class UpdateTimes(list[tuple[float, float]]):
    """An observer that notes, at each update, the time and how busy the engines were; and a saver of nothing."""

    def __init__(self, engines: Sequence[NullEngine]) -> None:
        self._engines = engines

    def on_update(self, row: dict[str, Any], groups: Sequence[Group]) -> None:
        """One more."""
        busy_s = sum(engine.busy_s for engine in self._engines)
        self.append((asyncio.get_running_loop().time(), busy_s))

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Nothing to note."""

    def on_drop(self, group: Group, reason: DropReason) -> None:
        """Nothing to note."""

    async def save(self, controller: Controller, accuracy: float | None) -> None:
        """Nothing to save."""


def null_recipe(
    num_updates: int, groups_per_update: int, group_size: int, max_staleness: int, over_provision: float = 0.0
) -> Recipe:
    """What the controller reads of a recipe."""
    return Recipe.model_validate(
        {
            "name": "null",
            "model": {"path": "null"},
            "data": {"train": [{"kind": "function", "function": "services.tasks:number_after"}]},
            "reward": {"rubrics": {"default": {"accuracy": {"kind": "math"}}}},
            "training": {
                "num_updates": num_updates,
                "groups_per_update": groups_per_update,
                "group_size": group_size,
                "max_staleness": max_staleness,
                "over_provision": over_provision,
            },
            "evaluation": {"every_updates": 0},
        }
    )


async def null_run(
    recipe: Recipe, num_engines: int, groups_per_engine: int, generation: Seconds, update: Seconds
) -> tuple[Controller, list[NullEngine], NullLearner, UpdateTimes]:
    """A controller over null actors, ready to run, and when it made which update."""
    engines: list[NullEngine] = []
    times = UpdateTimes(engines)

    async def engine(name: str) -> NullEngine:
        engines.append(NullEngine(name, generation))
        return engines[-1]

    async def rewards(name: str) -> NullRewards:
        return NullRewards(name)

    rollouts: Fleet[RolloutWorker] = Fleet("rollout", engine, limit=groups_per_engine, needs_weights=True)
    rewarders: Fleet[RewardWorker] = Fleet("reward", rewards, limit=1_000_000)
    await rollouts.start(num_engines)
    await rewarders.start(1)
    learner = NullLearner(update)
    carrier = GroupCarrier(rollouts, rewarders, recipe.training.max_group_attempts, lease_deadline_s=3600.0)
    loop, training = asyncio.get_running_loop(), recipe.training
    controller = Controller(
        recipe=recipe,
        prompts=_Prompts(),
        buffer=GroupBuffer(
            training.groups_per_update,
            training.max_staleness,
            False,
            lambda *_, **__: None,
            loop.time,
            num_spare=training.num_spare_groups,
        ),
        carrier=carrier,
        rollouts=rollouts,
        learner=learner,
        sync=WeightSync(learner, rollouts, deadline_s=3600.0, start_s=3600.0),
        evaluator=Evaluator(carrier, [PROMPT], recipe.evaluation_sampling),
        saver=times,
        observers=[times],
        clock=loop.time,
    )
    return controller, engines, learner, times


def constant(seconds: float) -> Seconds:
    """The same every time."""
    return lambda: seconds


def around(mean: float, seed: int) -> Seconds:
    """Between half of it and one and a half: nobody finishes at the same moment."""
    chance = random.Random(seed)
    return lambda: mean * chance.uniform(0.5, 1.5)


def lognormal(median: float, sigma: float, seed: int) -> Seconds:
    """Lengths as they are in reality: many short, a few very long."""
    chance = random.Random(seed)
    return lambda: median * chance.lognormvariate(0.0, sigma)


TOKENS = np.arange(NUM_TOKENS, dtype=np.int32)
LOGPROBS = np.full(NUM_TOKENS, -0.5, dtype=np.float32)
PROMPT = Prompt(prompt_id="null/0", messages=(), answer="42")
VERDICTS = tuple(
    Verdict(reward=reward, components={"accuracy": reward}, status=status, reason="", seconds=0.0)
    for reward, status in ((1.0, VerdictStatus.CORRECT), (0.0, VerdictStatus.WRONG))
)
