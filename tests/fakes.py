"""Scripted stand-ins for the actors: they record what happened and do what the test says. Benchmarks use them too."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord, EpisodeRequest, SessionTurn
from rayzero.services.schema.errors import EpisodeClosed, WorkerError
from rayzero.services.schema.interfaces import SftExample
from rayzero.services.schema.messages import (
    ChatMessage,
    Completion,
    Group,
    GroupCompletions,
    GroupRequest,
    Prompt,
    Rollout,
    UpdateResult,
    Verdict,
    VerdictStatus,
    VersionSpan,
)
from rayzero.services.schema.weights import Rendezvous, WeightManifest, WeightReceipt


def make_recipe(**training: Any) -> Recipe:
    """A small valid recipe; keyword arguments go into its `training` section."""
    return Recipe.model_validate(
        {
            "name": "fake",
            "model": {"path": "fake", "dtype": "bfloat16"},
            "data": {"train": [{"kind": "function", "function": "rayzero.services.data.tasks.numbers:number_after"}]},
            "reward": {"rubrics": {"default": {"accuracy": {"kind": "math"}}}},
            "training": {"num_updates": 3, "groups_per_update": 2, "group_size": 2, **training},
            "evaluation": {"every_updates": 0, "num_prompts": 2, "greedy": "never"},
        }
    )


def make_prompt(index: int) -> Prompt:
    """Prompt number `index`; its answer is its number."""
    return Prompt(
        prompt_id=f"train/{index}", messages=(ChatMessage(role="user", content=f"say {index}"),), answer=str(index)
    )


def make_completion(version: int = 0, text: str = "42", num_tokens: int = 3, newest: int | None = None) -> Completion:
    """A completion sampled from one version, its last token from the newest one if that is another."""
    spans: tuple[VersionSpan, ...] = (VersionSpan(start=0, end=num_tokens, policy_version=version),)
    if newest is not None and newest != version:
        first, last = replace(spans[0], end=num_tokens - 1), replace(spans[0], start=num_tokens - 1)
        spans = (first, replace(last, policy_version=newest))
    return Completion(
        text=text,
        token_ids=np.arange(num_tokens, dtype=np.int32),
        rollout_logprobs=np.full(num_tokens, -0.5, dtype=np.float32),
        version_spans=spans,
        finish_reason="stop",
    )


def make_verdict(reward: float = 1.0) -> Verdict:
    """A verdict with that reward; NaN makes an error."""
    status = VerdictStatus.CORRECT if reward >= 1 else VerdictStatus.WRONG
    if reward != reward:
        status = VerdictStatus.ERROR
    cause = ErrorCause.EXCEPTION if status is VerdictStatus.ERROR else None
    return Verdict(reward=reward, components={"accuracy": reward}, status=status, reason="", seconds=0.0, cause=cause)


def make_group(group_id: int, version: int = 0, rewards: Sequence[float] = (0.0, 1.0)) -> Group:
    """A finished group sampled from one version."""
    return Group(
        group_id=group_id,
        prompt=make_prompt(group_id),
        prompt_token_ids=np.arange(4, dtype=np.int32),
        rollouts=tuple(
            Rollout(completion=make_completion(version), verdict=make_verdict(reward)) for reward in rewards
        ),
    )


def impossible(group: Group) -> Group:
    """The group, with a token in its first completion that the sampler gave no chance at all."""
    first, *rest = group.rollouts
    logprobs = first.completion.rollout_logprobs.copy()
    logprobs[1] = -np.inf
    first = replace(first, completion=replace(first.completion, rollout_logprobs=logprobs))
    return replace(group, rollouts=(first, *rest))


class Events(list[str]):
    """What happened, in order; shared by all fakes of a test."""


class FakeRolloutWorker:
    """Generates after `delay_s`; `failures` maps a step to the exception that it raises, once."""

    def __init__(self, name: str, events: Events, delay_s: float = 0.0) -> None:
        self.name = name
        self.events = events
        self.delay_s = delay_s
        self.version = -1
        self.pid: int | None = None
        self.node = ""
        self.metrics_target = ""
        self.dead = False
        self.failures: dict[str, Exception] = {}
        self.on_generate: Callable[[GroupRequest], float] = lambda request: self.delay_s
        self.running: dict[int, asyncio.Event] = {}
        self.sessions: dict[str, EpisodeRequest] = {}
        self.rendezvous: Rendezvous | None = None
        self.rank = -1
        self.wrong_by = 0.0
        """How far its log-probabilities are from the learner's."""

    def _step(self, step: str) -> None:
        self.events.append(f"{self.name}.{step}")
        if self.dead:
            raise WorkerError(f"{self.name} is dead")
        if step in self.failures:
            raise self.failures.pop(step)

    async def generate(self, request: GroupRequest) -> GroupCompletions:
        self._step("generate")
        started_with = self.version
        delay_s = self.on_generate(request)
        ended = self.running[request.group_id] = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await ended.wait()
        del self.running[request.group_id]
        if self.dead:
            raise WorkerError(f"{self.name} died")
        return GroupCompletions(
            group_id=request.group_id,
            prompt_token_ids=np.arange(4, dtype=np.int32),
            prompt_text=request.prompt.messages[-1].content,
            completions=tuple(
                make_completion(started_with, newest=self.version) for _ in range(request.sampling.num_completions)
            ),
            worker=self.name,
            seconds=0.0,
        )

    async def abort(self, group_id: int) -> None:
        self._step(f"abort {group_id}")
        if group_id in self.running:
            self.running[group_id].set()

    async def open_episode(self, request: EpisodeRequest) -> str:
        self._step("open_episode")
        session = f"{self.name}-{request.group_id}-{request.index}"
        self.sessions[session] = request
        return session

    async def turn(self, session: str, messages: Sequence[ChatMessage]) -> SessionTurn:
        self._step("turn")
        if session not in self.sessions:
            raise EpisodeClosed(f"{self.name} has no session {session}")
        return SessionTurn(message=ChatMessage(role="assistant", content="42"), finish_reason="stop", num_tokens=3)

    async def close_episode(self, session: str) -> EpisodeRecord:
        self._step("close_episode")
        if self.sessions.pop(session, None) is None:
            raise EpisodeClosed(f"{self.name} has no session {session}")
        completion = make_completion(self.version)
        return EpisodeRecord(prompt_token_ids=np.arange(4, dtype=np.int32), prompt_text="", completion=completion)

    async def serve_episodes(self) -> str:
        self._step("serve_episodes")
        return "127.0.0.1:9"

    async def watch_episode(self, session: str, start_s: float, step_s: float) -> EpisodeEnd:
        self._step("watch_episode")
        await asyncio.sleep(start_s if session in self.sessions else 0)
        return EpisodeEnd.ENVIRONMENT_ERROR

    async def logprobs(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        self._step("logprobs")
        return np.full(len(token_ids), self.wrong_by, dtype=np.float32)

    async def join_transfer(self, rendezvous: Rendezvous, rank: int) -> None:
        self._step("join")
        self.rendezvous, self.rank = rendezvous, rank

    async def receive_weights(self, manifest: WeightManifest) -> None:
        self._step("receive")

    async def apply_weights(self, policy_version: int) -> WeightReceipt:
        self._step("apply")
        self.version = policy_version
        return WeightReceipt(
            worker=self.name, policy_version=policy_version, num_tensors=1, receive_s=0.0, pause_s=0.01
        )

    async def sleep(self) -> None:
        self._step("sleep")

    async def wake(self) -> None:
        self._step("wake")

    async def shutdown(self) -> None:
        self.events.append(f"{self.name}.shutdown")
        self.dead = True


class FakeRewardWorker:
    """Rewards completion i of a group with `rewards[i % len]`."""

    def __init__(self, name: str, events: Events, rewards: Sequence[float] = (0.0, 1.0)) -> None:
        self.name = name
        self.events = events
        self.rewards = list(rewards)
        self.pid: int | None = None
        self.node = ""
        self.failures: list[Exception] = []

    async def score(self, prompt: Prompt, prompt_text: str, completions: Sequence[Completion]) -> tuple[Verdict, ...]:
        self.events.append(f"{self.name}.score")
        if self.failures:
            raise self.failures.pop(0)
        rewards = list(self.rewards)  # what the script says now, not after others ran
        await asyncio.sleep(0)
        return tuple(make_verdict(rewards[index % len(rewards)]) for index in range(len(completions)))

    async def shutdown(self) -> None:
        self.events.append(f"{self.name}.shutdown")


class FakeLearner:
    """Counts updates; `trained`, the group ids of every batch, is its policy: saved and loaded."""

    def __init__(self, events: Events, delay_s: float = 0.0) -> None:
        self.events = events
        self.delay_s = delay_s
        self.trained: list[list[int]] = []
        self.staleness: list[int] = []
        self.num_transfers = 0
        self.pid: int | None = None
        self.node = ""
        self.revivals = 0
        self.failures: dict[str, Exception] = {}
        self.dead = False

    def _step(self, step: str) -> None:
        self.events.append(f"learner.{step}")
        if self.dead:
            raise WorkerError("learner is dead")
        if step in self.failures:
            raise self.failures.pop(step)

    async def update(self, groups: Sequence[Group], policy_version: int) -> UpdateResult:
        self._step("update")
        await asyncio.sleep(self.delay_s)
        if self.dead:
            raise WorkerError("learner died")
        self.trained.append([group.group_id for group in groups])
        self.staleness += [policy_version - 1 - group.oldest_version for group in groups]
        return UpdateResult(policy_version=policy_version, metrics={"loss": 0.0, "entropy": 1.0})

    async def logprobs(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.zeros(len(token_ids), dtype=np.float32)

    async def sft_step(self, examples: Sequence[SftExample], update: int) -> Mapping[str, float]:
        self._step("sft")
        return {"loss": 0.0}

    async def end_sft(self) -> None:
        self._step("end_sft")

    async def open_transfer(self, num_receivers: int) -> Rendezvous:
        self._step("open")
        self.num_transfers += 1
        return Rendezvous(host="127.0.0.1", port=self.num_transfers, world_size=num_receivers + 1)

    async def accept_transfer(self) -> None:
        self._step("accept")

    async def abort_transfer(self) -> None:
        self.events.append("learner.abort")

    async def prepare_weights(self, policy_version: int) -> WeightManifest:
        self._step("prepare")
        return WeightManifest(policy_version=policy_version, tensors=(), bucket_bytes=(100,))

    async def broadcast_weights(self) -> int:
        self._step("broadcast")
        return 100

    async def save_checkpoint(self, directory: str) -> None:
        self._step("save")
        Path(directory, "learner.json").write_text(json.dumps(self.trained))

    async def load_checkpoint(self, directory: str) -> None:
        self._step("load")
        self.trained = json.loads(Path(directory, "learner.json").read_text())

    async def shutdown(self) -> None:
        self.events.append("learner.shutdown")
        self.dead = True


class FakePrompts:
    """Prompts 0, 1, 2, …"""

    def __init__(self) -> None:
        self.position = 0

    def next(self) -> Prompt:
        self.position += 1
        return make_prompt(self.position - 1)

    def learn(self, group: Group) -> None:
        pass

    def counts(self) -> Mapping[str, int]:
        return {}

    def find(self, prompt_id: str) -> Prompt:
        return make_prompt(int(prompt_id.rpartition("/")[2]))

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
