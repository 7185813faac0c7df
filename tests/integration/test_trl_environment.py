"""One environment file under TRL's GRPOTrainer and under rayzero, on a model that was taught the form of a call: each
side calls its tools, and a transcript has the same answers and the same reward on either."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.word_game import WordGame
from rayzero.rewards.environments.worker import EnvironmentHost
from rayzero.services.schema.config.environment import PythonEnvironment
from rayzero.services.store.ledger import audit
from rayzero.services.store.rollout_file import read_groups
from tests.fakes_episodes import FakeSessions, calls, episode_request, in_turn
from tests.tool_model import QUESTION, WORDS, build_tool_model

_MISSING = importlib.util.find_spec("trl") is None and os.environ.get("RAYZERO_CI") != "1"
pytestmark = [
    pytest.mark.skipif(_MISSING, reason="trl is not installed (make setup-dev)"),
    pytest.mark.long,
    pytest.mark.timeout(1500),
]

Transcript = tuple[str, tuple[tuple[str, str], ...], float]
"""The word, each call's argument with the tool's answer, and the reward."""
NUM_CALLS = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template that TRL knows for tools."""
    import trl

    template = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text(encoding="utf-8")
    torch.set_num_threads(1)
    return build_tool_model(tmp_path_factory.mktemp("model"), template)


def transcript(word: str, messages: list[dict[str, Any]], reward: float) -> Transcript:
    """Of messages in OpenAI's form: calls that could be read, in order, with their answers."""
    words, answers = [], []
    for message in messages:
        for call in message.get("tool_calls") or ():
            arguments = call["function"]["arguments"]
            words.append((json.loads(arguments) if isinstance(arguments, str) else arguments)["word"])
        if message["role"] == "tool":
            answers.append(message["content"])
    return word, tuple(zip(words, answers, strict=False)), reward


def under_trl(model: Path, folder: Path) -> list[Transcript]:
    """One step of GRPOTrainer with the class as its `environment_factory`."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        seen: list[Transcript] = []

        def look(completions: Any, environments: Any, answer: Any, **_: Any) -> list[float]:
            for word, messages, game in zip(answer, completions, environments, strict=True):
                seen.append(transcript(word, messages, game.get_reward()))
            return [0.0] * len(completions)

        rows = [{"prompt": [{"role": "user", "content": QUESTION}], "answer": word} for word in WORDS]
        config = GRPOConfig(
            output_dir=str(folder), use_cpu=True, bf16=False, max_steps=3, per_device_train_batch_size=8,
            num_generations=4, max_completion_length=512, max_tool_calling_iterations=3, report_to=[], seed=0,
            save_strategy="no", disable_tqdm=True, temperature=1.0, gradient_checkpointing=False, learning_rate=1e-5,
        )  # fmt: skip
        trainer = GRPOTrainer(
            str(model), reward_funcs=look, args=config, train_dataset=Dataset.from_list(rows),
            environment_factory=WordGame,
        )  # fmt: skip
        trainer.train()
    return seen


RECIPE = """
name: words
model: {{path: {model}, dtype: float32}}
data:
  train: [{{kind: jsonl, path: {rows}}}]
environment:
  factory: "examples.word_game:WordGame"
  tool_parser: hermes
  limits: {{turns: 4, turn_tokens: 48}}
rollout: {{sampling: {{max_tokens: 48}}, max_model_tokens: 800, max_num_seqs: 16, kv_cache_bytes: 33554432}}
reward: {{rubrics: {{default: {{game: {{kind: environment}}}}}}}}
training: {{num_updates: 3, groups_per_update: 2, group_size: 4, max_staleness: 0}}
evaluation: {{num_prompts: 0}}
observe: {{api: {{port: 0}}}}
"""


def under_rayzero(model: Path, folder: Path) -> list[Transcript]:
    """Two updates of as many episodes."""
    rows = folder / "rows.jsonl"
    lines = [json.dumps({"prompt": QUESTION, "answer": word}) for word in WORDS]
    rows.write_text("\n".join(lines), encoding="utf-8")
    recipe = folder / "words.yaml"
    recipe.write_text(RECIPE.format(model=model, rows=rows), encoding="utf-8")
    command = [sys.executable, "-m", "rayzero", "train", str(recipe), "--run-dir", str(folder / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert audit(folder / "run").problems == ()
    seen = []
    for file in sorted((folder / "run" / "rollouts").glob("update_*.jsonl")):
        for group in read_groups(file):
            for rollout in group.rollouts:
                outcome = rollout.completion.outcome
                assert outcome is not None and outcome.reward == rollout.verdict.reward
                words = [
                    str(call.arguments["word"])
                    for message in outcome.messages
                    for call in message.tool_calls
                    if not call.error
                ]
                answers = [message.content for message in outcome.messages if message.role == "tool"]
                pairs = tuple(zip(words, answers, strict=False))
                seen.append((str(group.prompt.answer), pairs, outcome.reward))
    return seen


async def replayed(seen: list[Transcript]) -> list[Transcript]:
    """The same calls, made by a scripted model in rayzero's environment processes."""
    settings = PythonEnvironment.model_validate(
        {"factory": "examples.word_game:WordGame", "limits": {"turns": 50, "tool_calls": 50}}
    )
    host, again = EnvironmentHost(settings), []
    try:
        for word, pairs, _ in seen:
            request = episode_request()
            request = replace(request, prompt=replace(request.prompt, answer=word))
            speak = in_turn(*(calls("guess", word=guess) for guess, _ in pairs))
            outcome = (await host.run_episode(request, FakeSessions(speak))).completion.outcome
            assert outcome is not None and outcome.reward is not None
            answers = [message.content for message in outcome.messages if message.role == "tool"]
            guesses = [guess for guess, _ in pairs]
            again.append((word, tuple(zip(guesses, answers, strict=False)), outcome.reward))
    finally:
        await host.close()
    return again


def until_won(seen: Transcript) -> Transcript:
    """TRL knows no `done`: its models may go on to call, and the environment answers that the game is over."""
    word, pairs, reward = seen
    won = [number for number, (_, answer) in enumerate(pairs) if answer == word.upper()]
    return word, pairs[: won[0] + 1] if won else pairs, reward


def test_one_file_plays_under_both(model: Path, tmp_path: Path) -> None:
    theirs, ours = under_trl(model, tmp_path / "trl"), under_rayzero(model, tmp_path)
    for seen in (theirs, ours):
        assert sum(len(pairs) for _, pairs, _ in seen) >= NUM_CALLS
    for seen in (theirs, ours):
        assert asyncio.run(replayed(seen)) == [until_won(each) for each in seen]
    common = {each[:2] for each in map(until_won, theirs)} & {each[:2] for each in map(until_won, ours)}
    assert common, "the same calls were made on both sides"
    for key in common:
        assert len({each[2] for each in map(until_won, [*theirs, *ours]) if each[:2] == key}) == 1
