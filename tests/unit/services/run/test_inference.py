"""`rayzero generate` starts engines and nothing else; `workers`, for evaluations, starts rewards beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.run import inference
from rayzero.services.run.inference import generation_recipe
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RayzeroError
from rayzero.services.schema.messages import Sampling
from tests.fakes import Events, FakeRewardWorker, FakeRolloutWorker, make_recipe

EVENTS = Events()
SMALL = ModelShape(
    hidden_size=64, num_layers=2, num_heads=2, num_kv_heads=2, head_dim=32, intermediate_size=128, vocab_size=64,
    max_positions=256, tied_embeddings=True, attention_bias=False, qk_norm=False,
)  # fmt: skip
"""It holds fewer tokens than `generate` likes to have room for."""


class Session:
    """No Ray."""

    def __init__(self, recipe: Any) -> None:
        pass

    def start(self) -> None:
        EVENTS.append("ray")

    def stop(self) -> None:
        EVENTS.append("no ray")


class Places:
    """Scripted actors, in place of spawned ones."""

    recipes: list[Recipe]

    def __init__(self, recipe: Recipe, *_: Any, **__: Any) -> None:
        self.recipes.append(recipe)

    async def rollout_worker(self, name: str) -> FakeRolloutWorker:
        EVENTS.append(f"{name} starts")
        return FakeRolloutWorker(name, EVENTS)

    async def reward_worker(self, name: str) -> FakeRewardWorker:
        EVENTS.append(f"{name} starts")
        return FakeRewardWorker(name, EVENTS)


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(inference, "RaySession", Session)
    monkeypatch.setattr(inference, "Placement", Places)
    monkeypatch.setattr(Places, "recipes", [], raising=False)
    EVENTS.clear()
    yield


def test_generate_starts_engines_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(inference, "resolve_model", lambda *_, **__: Path("model"))
    monkeypatch.setattr(inference, "read_shape", lambda path, trained: SMALL)
    inference.generate("small", "41+1=", Sampling(num_completions=2, max_tokens=8))
    assert EVENTS == ["ray", "rollout-0 starts", "rollout-0.generate", "rollout-0.shutdown", "no ray"]
    assert capsys.readouterr().out.count("42") == 2


def test_an_evaluation_has_rewards_beside_its_engines() -> None:
    async def enter() -> None:
        async with inference.workers(make_recipe(), Path("model"), Console(quiet=True)) as runner:
            assert [len(fleet.slots) for fleet in runner.fleets] == [1, 1]

    asyncio.run(enter())
    assert EVENTS[0] == "ray" and EVENTS[-1] == "no ray"
    assert set(EVENTS[1:-1]) == {
        f"{role}-0{what}" for role in ("rollout", "reward") for what in (" starts", ".shutdown")
    }


def test_engines_without_a_learner_record_no_routing() -> None:
    async def enter() -> None:
        given = make_recipe()
        given = given.model_copy(update={"learner": given.learner.model_copy(update={"routing_replay": True})})
        async with inference.workers(given, Path("model"), Console(quiet=True)):
            pass

    asyncio.run(enter())
    assert [recipe.learner.routing_replay for recipe in Places.recipes] == [False]


def test_ray_ends_when_an_engine_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Places, name: str) -> FakeRolloutWorker:
        raise RayzeroError("no memory")

    monkeypatch.setattr(Places, "rollout_worker", broken)

    async def enter() -> None:
        async with inference.engines_alone(make_recipe(), Path("model"), Console(quiet=True)):
            raise AssertionError("no engine serves")

    with pytest.raises(RayzeroError, match="no memory"):
        asyncio.run(enter())
    assert EVENTS == ["ray", "no ray"]


def test_a_prompt_that_is_no_text_is_refused_before_anything_starts() -> None:
    with pytest.raises(RayzeroError, match=r"the prompt is not UTF-8 text: \\udcff"):
        inference.generate("no-such-model", "\udcff", Sampling(num_completions=1, max_tokens=8))


@pytest.mark.parametrize(("positions", "max_tokens"), [(128, 64), (256, 128), (32768, 256)])
def test_generate_fits_any_model(positions: int, max_tokens: int) -> None:
    recipe = generation_recipe("tiny-words", 256, positions, has_turns=False)
    assert recipe.rollout.max_model_tokens <= positions
    assert recipe.rollout.sampling.max_tokens == max_tokens
    assert recipe.rollout.prompt_template == "text"
