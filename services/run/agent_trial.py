"""`rayzero env check` of what asks the model by itself: an agent, or a taskset of verifiers. It plays whole episodes
with made-up turns, against the endpoint that it finds in a run."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rayzero.rewards.environments.agent_host import AskingHost
from rayzero.services.run.environment_rows import request_of
from rayzero.services.run.environment_trial import SEEDS, WORDS, TrialFinding, difference
from rayzero.services.run.spoken_engine import SpokenEngine, open_engine
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeOutcome
from rayzero.services.schema.errors import ActorStartError, EngineFailed, PromptRefused
from rayzero.services.schema.messages import Sampling


async def try_agent(recipe: Recipe, host: AskingHost, row: Mapping[str, Any], model_path: Path) -> list[TrialFinding]:
    """What was found of the recipe's agent. The host is left to the caller."""
    try:
        await host.start()
    except ActorStartError as error:
        return [TrialFinding(name="found", is_well=False, detail=str(error))]
    findings = [TrialFinding(name="found", is_well=True, detail="it can be started")]
    engine = open_engine(recipe.rollout, model_path, _made_up)
    max_tokens = host.settings.limits.turn_tokens or recipe.rollout.sampling.max_tokens
    trial = _Trial(host, engine, row, max_tokens)
    try:
        first = await trial.play(SEEDS[0])
        findings.append(_ends(first))
        if findings[-1].is_well:
            again, other = await trial.play(SEEDS[0]), await trial.play(SEEDS[1])
            findings.append(_repeats(first, again))
            pair = await asyncio.gather(*(trial.play(seed) for seed in SEEDS))
            findings.append(_side_by_side((first, other), pair))
        longest = max(trial.seconds)
        findings.append(TrialFinding(name="longest episode", is_well=True, detail=f"{1000 * longest:.0f} ms"))
    except PromptRefused as error:
        findings.append(TrialFinding(name="an episode of made-up turns", is_well=False, detail=str(error)))
    finally:
        await engine.close()
    return findings


class _Trial:
    """Episodes of one row."""

    def __init__(self, host: AskingHost, engine: SpokenEngine, row: Mapping[str, Any], max_tokens: int) -> None:
        self._host, self._engine, self._row, self._max_tokens = host, engine, row, max_tokens
        self._number = 0
        self.seconds: list[float] = [0.0]

    async def play(self, seed: int) -> EpisodeOutcome:
        """One; the model says the same for the same seed."""
        self._number += 1  # a group of its own: the same place again would end the one before
        request = replace(request_of(self._row, self._max_tokens, seed), group_id=self._number)
        started = time.perf_counter()
        try:
            outcome = (await self._host.run_episode(request, self._engine)).completion.outcome
        except EngineFailed as error:
            return EpisodeOutcome(end=EpisodeEnd.ENVIRONMENT_ERROR, reason=str(error))
        self.seconds.append(time.perf_counter() - started)
        assert outcome is not None
        return outcome


async def _made_up(context: str, sampling: Sampling) -> str:
    return random.Random(sampling.seed).choice(WORDS)


def _ends(outcome: EpisodeOutcome) -> TrialFinding:
    name = "an episode of made-up turns"
    if outcome.end is EpisodeEnd.ENVIRONMENT_ERROR:
        return TrialFinding(name=name, is_well=False, detail=outcome.reason)
    if outcome.end in (EpisodeEnd.STEP_DEADLINE, EpisodeEnd.EPISODE_DEADLINE) and outcome.reward is None:
        return TrialFinding(name=name, is_well=False, detail=f"it hangs: {outcome.reason}")
    reward = "gives no reward: a rubric must judge" if outcome.reward is None else f"reward {outcome.reward:g}"
    number = sum(message.role == "assistant" for message in outcome.messages)
    return TrialFinding(name=name, is_well=True, detail=f"{number} turns, ended as {outcome.end}; {reward}")


def _repeats(first: EpisodeOutcome, again: EpisodeOutcome) -> TrialFinding:
    name = "the same for the same seed"
    if said(first) != said(again):
        detail = again.reason or difference(said(first), said(again))
        hint = "draw from random.Random(row['seed']), and ask for one turn after the other"
        return TrialFinding(name=name, is_well=False, detail=f"{detail}; {hint}")
    return TrialFinding(name=name, is_well=True, detail=f"{len(first.messages)} messages alike")


def _side_by_side(alone: Sequence[EpisodeOutcome], pair: Sequence[EpisodeOutcome]) -> TrialFinding:
    name = "two at once"
    for one, other in zip(alone, pair, strict=True):
        if said(one) != said(other):
            detail = other.reason or difference(said(one), said(other))
            return TrialFinding(name=name, is_well=False, detail=f"{detail}: they share a file, a port or a server")
    return TrialFinding(name=name, is_well=True, detail="each as by itself")


def said(outcome: EpisodeOutcome) -> list[str]:
    """All that can be told of an episode, message by message."""
    messages = [f"{message.role} {message.content}" for message in outcome.messages]
    return [*messages, f"ended as {outcome.end}", f"reward {outcome.reward}"]
