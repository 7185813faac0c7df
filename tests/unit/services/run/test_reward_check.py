"""A custom reward is tried before a run, and what it gave is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.run.reward_check import check_custom_rewards
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.messages import ChatMessage, Prompt
from tests.small_recipe import write_model, write_place

REWARDS = r"""
def tells(completions, answer, **_):
    return [1.0 if r"\boxed{%s}" % gold in text else 0.25 for text, gold in zip(completions, answer)]

def same(completions, **_):
    return [0.5] * len(completions)

def raises(completions, **_):
    return [None if text == "" else float(text) for text in completions]
"""


def prompts(*answers: object) -> list[Prompt]:
    question = (ChatMessage(role="user", content="?"),)
    return [
        Prompt(prompt_id=f"train/{place}", messages=question, answer=answer, source="default")
        for place, answer in enumerate(answers, start=1)
    ]


@pytest.mark.parametrize(
    ("function", "answers", "said"),
    [
        (
            "tells",
            ("7", "7", "12"),
            r"gives 1 to the right answer \boxed{7}, 0.25 to another one \boxed{12}, 0.25 to no text (train/1)",
        ),
        ("tells", (7,), r"gives 1 to the right answer \boxed{7}, 0.25 to another one \boxed{not 7}, 0.25 to no text"),
        ("same", ("7", "12"), r"gives 0.5 to each of the right answer \boxed{7}, another one \boxed{12}, no text"),
        ("same", ({"tests": []},), r"gives 0.5 to each of the prompt's own text, a short text, no text"),
        ("raises", ("7", "12"), r"gives an error (ValueError: could not convert string to float: '\\boxed{7}') to"),
        ("raises", ("7", "12"), "no score to no text"),
    ],
)
def test_what_a_reward_gives_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, answers: tuple[object, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_place(tmp_path, write_model(tmp_path))
    (tmp_path / "tried_rewards.py").write_text(REWARDS)
    recipe = load_recipe(
        "mini.yaml", [f"reward.rubrics.default.r={{kind: custom, function: 'tried_rewards:{function}'}}"]
    )
    heard: list[str] = []
    check_custom_rewards(recipe, prompts(*answers), heard.append)
    (sentence,) = heard
    assert sentence.startswith(f"reward.rubrics.default.r: tried_rewards:{function} gives ")
    assert said in sentence
