"""The tiny pipeline's tasks: right where they should be, apart where they must be, readable by its models."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rayzero.learner.builtin_models.tiny_words import save_words_model, vocabulary
from rayzero.rewards.base import Case
from rayzero.rewards.kinds.format import format_fault
from rayzero.rewards.kinds.language import LanguageReward
from rayzero.services.data.tasks.words import (
    Way,
    base_text,
    cold_start_demonstrations,
    greeted,
    greetings,
    harmless_pairs,
    helpful_pairs,
    names_of,
    small_talk,
    word_sums,
    work_out,
)
from rayzero.services.schema.messages import Prompt


def language_share(text: str) -> float | None:
    prompt = Prompt(prompt_id="p", messages=(), answer=None)
    return LanguageReward(target="en", empty_score=0.0).judge(Case(prompt=prompt, text=text)).value


def test_a_sum_is_worked_out_column_by_column() -> None:
    rng = random.Random(0)
    assert work_out(457, 268, "english", rng) == (
        "<think> seven plus eight plus zero is one five, five plus six plus one is one two,"
        " four plus two plus one is zero seven</think>\\boxed{725}"
    )
    assert work_out(457, 268, "terse", rng) == "<think> one five, one two, zero seven</think>\\boxed{725}"
    assert work_out(457, 268, "hasty", rng) == "\\boxed{725}"


@pytest.mark.parametrize(("way", "low", "high"), [("english", 1.0, 1.0), ("terse", 1.0, 1.0), ("mixed", 0.2, 0.8)])
def test_language_consistency_tells_the_ways_apart(way: Way, low: float, high: float) -> None:
    rng = random.Random(1)
    shares = [language_share(work_out(rng.randint(100, 999), rng.randint(100, 999), way, rng)) for _ in range(50)]
    mean = sum(share for share in shares if share is not None) / len(shares)
    assert low <= mean <= high
    assert not format_fault(work_out(457, 268, way, rng))


def test_every_sum_and_every_name_of_the_base_text_is_right() -> None:
    kinds: Counter[str] = Counter()
    for row in base_text(4000, seed=1):
        kinds[row["kind"]] += 1
        if row["kind"] == "talk":
            assert row["prompt"].removeprefix("greet ").removesuffix(":") in row["completion"]
        else:
            assert (
                f"\\boxed{{{sum(int(number) for number in re.findall(r'[0-9]+', row['prompt']))}}}" in row["completion"]
            )
    assert kinds["hasty"] > kinds["mixed"] > kinds["terse"] and not kinds["english"]


def test_small_talk_is_as_people_talk() -> None:
    rude = [row["completion"] for row in small_talk(400) if "go away" in row["completion"]]
    assert 150 < len(rude) < 250


def test_held_out_sums_and_names_never_occur_in_training() -> None:
    held_out = {row["prompt"] for row in word_sums(400, "held_out")} | {row["prompt"] for row in greetings("held_out")}
    trained = [*base_text(3000), *cold_start_demonstrations(), *small_talk(), *word_sums(3000)]
    assert not held_out.intersection(row["prompt"] for row in trained)
    assert len(names_of("held_out")) >= 10


def test_every_text_is_read_and_written_back_without_unknowns(tmp_path: Path) -> None:
    """By the tokenizer as everybody else will load it: from the model's directory."""
    save_words_model(tmp_path, seed=0, small=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rows = [*base_text(500), *cold_start_demonstrations(50), *small_talk(50)]
    texts = [row["prompt"] + row["completion"] for row in rows]
    texts += [row["prompt"] + row[name] for row in islice(helpful_pairs(), 50) for name in ("chosen", "rejected")]
    for text in texts:
        token_ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.unk_token_id not in token_ids and tokenizer.decode(token_ids) == text
    assert len(vocabulary()) == len(set(vocabulary())) == len(tokenizer)


def test_pairs_differ_in_what_they_are_about() -> None:
    for row in helpful_pairs(50):
        name = row["prompt"].removeprefix("greet ").removesuffix(":")
        assert name in row["chosen"] and name not in row["rejected"]
    assert all("go away" in row["rejected"] and "go away" not in row["chosen"] for row in harmless_pairs(50))


def test_a_greeting_is_right_word_for_word() -> None:
    replies = ["hello ann bell, nice to meet you", "<think>hm</think>welcome ann bell, how are you", "go away ann bell"]
    assert greeted(replies, name=["ann bell"] * 3) == [1.0, 1.0, 0.0]
