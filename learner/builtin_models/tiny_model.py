"""A model small enough to be trained from nothing on two CPU cores, with a tokenizer of one token a character."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

CHARACTERS = string.digits + string.ascii_letters + " \n+-*/=,.<>\\{}()?:"
END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""A prompt is its plain text: there are no turns to tell apart."""


CONFIGS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("configs.json").read_text(encoding="utf-8"))
"""By built-in name. Heads have 64 values: vLLM's CPU attention knows 32, 64, 80, 96 …, not 48."""


def save_tiny_model(directory: Path, seed: int) -> None:
    """Write a model of 1.6 M random parameters with its tokenizer; equal seeds give equal ones."""
    save_random_model(directory, seed, "tiny-addition", character_tokenizer())


def save_random_model(directory: Path, seed: int, name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a randomly initialised model of a built-in's sizes, in Hugging Face format."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config_of(name, tokenizer))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def config_of(name: str, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    """A built-in's sizes, and the tokens that end and fill a row."""
    from transformers import AutoConfig

    sizes = dict(CONFIGS[name])
    assert sizes["vocab_size"] == len(tokenizer)
    return AutoConfig.for_model(
        sizes.pop("model_type"),
        **sizes,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def character_tokenizer() -> PreTrainedTokenizerFast:
    """83 tokens: 80 characters, and the ends of a text, of a batch's rows and of what is known."""
    return tokenizer_of([PAD, UNKNOWN, END, *CHARACTERS], r"[\s\S]", max_tokens=256)


def tokenizer_of(vocabulary: Sequence[str], pattern: str, max_tokens: int) -> PreTrainedTokenizerFast:
    """One token for every match of the pattern that is in the vocabulary, the unknown one for all others."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = {token: index for index, token in enumerate(vocabulary)}
    tokenizer: Any = Tokenizer(models.WordLevel(known, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=max_tokens,
    )
