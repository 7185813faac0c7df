"""A reward model learns to prefer, goes on after a kill, and scores as it was trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rayzero.learner.builtin_models.tiny_words import save_words_model
from rayzero.rewards import scorer
from rayzero.rewards.actor import RewardActor
from rayzero.rewards.base import Case, Context
from rayzero.rewards.kinds import reward_model_training
from rayzero.rewards.kinds.reward_model import Classifier, RewardModelReward, read_part
from rayzero.rewards.kinds.reward_model_training import Spec, is_held_out, train
from rayzero.rewards.scorer import Scorer
from rayzero.services.data.tasks.words import harmless_pairs
from rayzero.services.schema.config.reward import RewardSettings
from rayzero.services.schema.config.reward_components import RewardModelComponent
from rayzero.services.schema.errors import ActorStartError
from rayzero.services.schema.messages import ChatMessage, Prompt


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("body")
    save_words_model(path, seed=0, small=True)
    return path


def spec_of(folder: Path, body: Path) -> Spec:
    (folder / "out").mkdir(parents=True)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in harmless_pairs(200)))
    return Spec(
        model=str(body),
        pairs=str(folder / "pairs.jsonl"),
        work=str(folder),
        output=str(folder / "out"),
        num_updates=20,
        pairs_per_update=8,
        learning_rate=3e-3,
        held_out_share=0.2,
        checkpoint_every_updates=10,
        seed=0,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, body: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    figures = train(spec_of(folder, body))
    assert figures["accuracy"] > 0.9 and figures["held_out_pairs"] > 10
    return folder / "out"


def case(reply: str) -> Case:
    prompt = Prompt(prompt_id="p", messages=(ChatMessage(role="user", content="greet ann bell:"),), answer=None)
    return Case(prompt=prompt, text=reply)


async def test_kind_replies_score_above_rude_ones(trained: Path) -> None:
    reward = RewardModelReward(RewardModelComponent(path=str(trained)))
    await reward.start()
    kind, rude, again = await reward.score(
        [case("hello ann bell, nice to meet you"), case("go away ann bell"), case("go away ann bell")], Context()
    )
    await reward.close()
    assert kind.value is not None and rude.value is not None
    assert kind.value > 0.5 > rude.value == again.value
    assert kind.status.value == "correct" and rude.status.value == "wrong"


def test_batches_score_as_single_texts_do(trained: Path) -> None:
    classifier = Classifier(trained)
    texts = [f"greet ann bell:{reply}" for reply in ("hello ann bell", "go away", "welcome ann bell, how are you")]
    together = classifier.logits(texts, tokens_per_batch=1000)
    assert together == pytest.approx([classifier.logits([text], 1)[0] for text in texts], abs=1e-4)


def test_a_killed_training_goes_on_to_the_same_model(
    tmp_path: Path, body: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, save = spec_of(tmp_path, body), reward_model_training._save

    class KilledError(Exception):
        pass

    def save_and_die(*arguments: Any) -> None:
        save(*arguments)
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(reward_model_training, "_save", save_and_die)
        train(spec)
    train(spec)
    ours, theirs = (Classifier(path).logits(["greet ann bell:go away"], 1000) for path in (tmp_path / "out", trained))
    assert ours == theirs


def test_no_prompt_stands_on_both_sides() -> None:
    sides = {row["prompt"]: is_held_out(row["prompt"], 0.2) for row in harmless_pairs(300)}
    assert 0.1 < sum(sides.values()) / len(sides) < 0.3


def test_pairs_that_leave_one_side_empty_are_refused(tmp_path: Path, body: Path) -> None:
    spec = spec_of(tmp_path, body)
    with pytest.raises(ValueError, match="no pair is held out: give pairs of more prompts, or raise held_out_share"):
        train(replace(spec, held_out_share=1e-9))


@pytest.mark.parametrize(
    ("text", "part", "read"),
    [
        ("<think>go away</think>hello", "answer", "hello"),
        ("<think>go away</think>hello", "whole", "<think>go away</think>hello"),
        ("<think>never ends", "answer", ""),
        ("hello", "answer", "hello"),
    ],
)
def test_helpfulness_reads_the_answer_and_harmlessness_all(text: str, part: str, read: str) -> None:
    assert read_part(case(text), part) == read


async def test_a_missing_model_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ActorStartError, match="holds no config"):
        await RewardModelReward(RewardModelComponent(path=str(tmp_path))).start()


async def test_a_gpu_is_used_where_one_is_reserved_and_nowhere_else(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that torch sees may be another actor's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ActorStartError, match=r"is to compute on a GPU, and torch .* cannot use one"):
        await RewardModelReward(RewardModelComponent(path=str(trained)), device="cuda").start()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Classifier(trained).device.type == "cpu"


def test_a_worker_computes_where_its_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []
    monkeypatch.setattr(scorer, "build_rubric", lambda components, capacity, rewards: devices.append(capacity.device))
    for share in (0.0, 0.5):
        settings = {"rubrics": {"default": {"accuracy": {"kind": "math"}}}, "num_gpus_per_worker": share}
        RewardActor(RewardSettings.model_validate(settings))._scorer._rubric("default")
    Scorer(RewardSettings.model_validate(settings))._rubric("default")
    assert devices == ["cpu", "cuda", "cpu"], "`rayzero grade` has reserved nothing"
