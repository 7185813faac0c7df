"""Two models from nothing that read words of English and Chinese: one token a word, one a Chinese character.

Llamas of 1.6 M and 0.3 M parameters with the same tokenizer. (Of a Qwen2 transformers would load Qwen2's own tokenizer
class, which splits texts at other places than tokenizer.json says.)
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING

from rayzero.learner.builtin_models.tiny_model import END, PAD, UNKNOWN, save_random_model, tokenizer_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SIGNS = ["<think>", "</think>", "\\boxed{", *string.digits, *"+=,:}{.?<>/\\ \n"]
_NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen plus is"""
_TALK = """greet hello welcome go away who are you how nice to meet ann ben cara dan eva finn gus hana ida jon kim leo
mia noa ola pia bell cole dale ford gray hill lake moss nash park reed wood"""
CHINESE = list("零一二三四五六七八九十加得")
FIRST_WORDS = ["greet", "hello", "welcome", "go", "who"]
"""Words that a text may begin with; all others come after a space, which is part of their token."""
PATTERN = r"<think>|</think>|\\boxed\{| ?[a-z]+|[\s\S]"


def save_words_model(directory: Path, seed: int, small: bool = False) -> None:
    """Write a randomly initialised model with its tokenizer in Hugging Face format; equal seeds give equal ones."""
    save_random_model(directory, seed, "tiny-words-small" if small else "tiny-words", word_tokenizer())


def vocabulary() -> list[str]:
    """All tokens in order."""
    spaced = [" " + word for word in (*_NUMBERS.split(), *_TALK.split())]
    return [PAD, UNKNOWN, END, *SIGNS, *FIRST_WORDS, *spaced, *CHINESE]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word with its space, a sign, a digit or a Chinese character is a token; other letters are unknown."""
    return tokenizer_of(vocabulary(), PATTERN, max_tokens=128)
