"""Actors that do nothing, in no time or after a while: what is left is the control plane's own cost.

The tests' scripted actors, less what they record and with one constant answer each.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.loop.controller import Controller
from rayzero.services.loop.evaluation import Evaluation, Evaluator
from rayzero.services.loop.group_buffer import GroupBuffer
from rayzero.services.loop.group_runner import GroupRunner
from rayzero.services.loop.weight_sync import WeightSync
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.interfaces import RewardWorker, RolloutWorker
from rayzero.services.schema.messages import (
    Completion,
    Group,
    GroupCompletions,
    GroupRequest,
    Prompt,
    UpdateResult,
    Verdict,
    VersionSpan,
)
from tests.fakes import (
    Events,
    FakeLearner,
    FakePrompts,
    FakeRewardWorker,
    FakeRolloutWorker,
    make_prompt,
    make_recipe,
    make_verdict,
)

Seconds = Callable[[], float]
"""How long the next one takes."""

NUM_TOKENS = 64


class _Unrecorded(Events):
    """Keeps nothing: a benchmark's events are too many, and noting them would be measured."""

    def append(self, event: str) -> None:
        pass


class NullEngine(FakeRolloutWorker):
    """Completes every group after `seconds()`; several groups take no longer than one."""

    def __init__(self, name: str, seconds: Seconds, num_tokens: int = 0) -> None:
        """`num_tokens`: of each completion, whose arrays are made; 0: the same 64 tokens in all of them."""
        super().__init__(name, _Unrecorded())
        self._seconds, self._num_tokens = seconds, num_tokens
        self.generated_tokens = 0
        self.busy_s = 0.0
        """Seconds of groups that are done, side by side ones counted each."""

    async def generate(self, request: GroupRequest) -> GroupCompletions:
        """G completions."""
        begun = self.version
        share = 1.0
        if (seconds := self._seconds()) > 0:
            share = await self._work(request.group_id, seconds) / seconds
            self.busy_s += share * seconds
        count = request.sampling.num_completions
        if self._num_tokens:
            completions = tuple(self._completion(begun, *_arrays(self._num_tokens)) for _ in range(count))
        else:
            completions = (self._completion(begun, TOKENS, LOGPROBS),) * count
        self.generated_tokens += round(share * completions[0].num_tokens * count)
        return GroupCompletions(
            group_id=request.group_id,
            prompt_token_ids=TOKENS,
            prompt_text="",
            completions=completions,
            worker=self.name,
            seconds=0.0,
        )

    def _completion(self, version: int, tokens: NDArray[np.int32], logprobs: NDArray[np.float32]) -> Completion:
        return Completion(
            text="42",
            token_ids=tokens,
            rollout_logprobs=logprobs,
            version_spans=(VersionSpan(start=0, end=len(tokens), policy_version=version),),
            finish_reason="stop",
        )

    async def _work(self, group_id: int, seconds: float) -> float:
        """Take so long, unless aborted; returns how long it took."""
        loop = asyncio.get_running_loop()
        begun, ended = loop.time(), asyncio.Event()
        self.running[group_id] = ended
        timer = loop.call_later(seconds, ended.set)
        try:
            await ended.wait()
        finally:
            timer.cancel()
            del self.running[group_id]
        return min(seconds, loop.time() - begun)


class NullRewards(FakeRewardWorker):
    """Half of a group right, half wrong, at once."""

    def __init__(self, name: str) -> None:
        super().__init__(name, _Unrecorded())

    async def score(self, prompt: Prompt, prompt_text: str, completions: Sequence[Completion]) -> tuple[Verdict, ...]:
        """One verdict a completion."""
        return tuple(VERDICTS[index % 2] for index in range(len(completions)))


class NullLearner(FakeLearner):
    """Makes every update in `seconds()`."""

    def __init__(self, seconds: Seconds) -> None:
        super().__init__(_Unrecorded())
        self._seconds = seconds
        self.trained_tokens = 0

    async def update(self, groups: Sequence[Group], policy_version: int) -> UpdateResult:
        """Counts tokens."""
        if (seconds := self._seconds()) > 0:
            await asyncio.sleep(seconds)
        self.trained_tokens += sum(group.num_tokens for group in groups)
        return UpdateResult(policy_version=policy_version, metrics={})


class _OnePrompt(FakePrompts):
    """The same prompt for ever: making one is not the control plane's work."""

    def next(self) -> Prompt:
        return PROMPT


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

    def on_drop(self, group: Group, reason: str) -> None:
        """Nothing to note."""

    async def save(self, controller: Controller) -> None:
        """Nothing to save."""


def null_recipe(
    num_updates: int, groups_per_update: int, group_size: int, max_staleness: int, over_provision: float = 0.0
) -> Recipe:
    """What the controller reads of a recipe."""
    return make_recipe(
        num_updates=num_updates,
        groups_per_update=groups_per_update,
        group_size=group_size,
        max_staleness=max_staleness,
        over_provision=over_provision,
    )


async def null_run(
    recipe: Recipe, num_engines: int, groups_per_engine: int, generation: Seconds, update: Seconds, num_tokens: int = 0
) -> tuple[Controller, list[NullEngine], NullLearner, UpdateTimes]:
    """A controller over null actors, ready to run, and when it made which update."""
    engines: list[NullEngine] = []
    times = UpdateTimes(engines)

    async def engine(name: str) -> NullEngine:
        engines.append(NullEngine(name, generation, num_tokens))
        return engines[-1]

    async def rewards(name: str) -> NullRewards:
        return NullRewards(name)

    rollouts: Fleet[RolloutWorker] = Fleet("rollout", engine, limit=groups_per_engine, needs_weights=True)
    rewarders: Fleet[RewardWorker] = Fleet("reward", rewards, limit=1_000_000)
    await rollouts.start(num_engines)
    await rewarders.start(1)
    learner = NullLearner(update)
    runner = GroupRunner(rollouts, rewarders, recipe.training.max_group_attempts, lease_deadline_s=3600.0)
    loop, training = asyncio.get_running_loop(), recipe.training
    controller = Controller(
        recipe=recipe,
        prompts=_OnePrompt(),
        buffer=GroupBuffer(
            training.groups_per_update,
            training.max_staleness,
            False,
            lambda *_, **__: None,
            loop.time,
            num_spare=training.num_spare_groups,
        ),
        runner=runner,
        rollouts=rollouts,
        learner=learner,
        sync=WeightSync(learner, rollouts, deadline_s=3600.0, start_s=3600.0),
        evaluator=Evaluator(runner, [PROMPT], recipe.evaluation_sampling),
        saver=times,
        observers=[times],
        clock=loop.time,
    )
    return controller, engines, learner, times


def _arrays(num_tokens: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    return np.arange(num_tokens, dtype=np.int32), np.full(num_tokens, -0.5, dtype=np.float32)


def constant(seconds: float) -> Seconds:
    """The same every time."""
    return lambda: seconds


def around(mean: float, seed: int) -> Seconds:
    """Between half of it and one and a half: no two finish at the same moment."""
    chance = random.Random(seed)
    return lambda: mean * chance.uniform(0.5, 1.5)


def lognormal(median: float, sigma: float, seed: int) -> Seconds:
    """Lengths as they are in reality: many short, a few very long."""
    chance = random.Random(seed)
    return lambda: median * chance.lognormvariate(0.0, sigma)


TOKENS, LOGPROBS = _arrays(NUM_TOKENS)
PROMPT = make_prompt(0)
VERDICTS = (make_verdict(1.0), make_verdict(0.0))
