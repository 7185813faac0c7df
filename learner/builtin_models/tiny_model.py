"""A model small enough to be trained from nothing on two CPU cores, with a tokenizer of one token a character."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2Config

CHARACTERS = string.digits + string.ascii_letters + " \n+-*/=,.<>\\{}()?:"
END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""A prompt is its plain text: there are no turns to tell apart."""


def save_tiny_model(directory: Path, seed: int) -> None:
    """Write a randomly initialised model with its tokenizer in Hugging Face format; equal seeds give equal ones."""
    import torch
    from transformers import Qwen2ForCausalLM

    tokenizer = character_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(tiny_config(tokenizer))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2Config:
    """1.6 M parameters: width 192, 4 layers, 3 heads of 64 (vLLM's CPU attention knows 32, 64, 80, 96 …, not 48)."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def character_tokenizer() -> PreTrainedTokenizerFast:
    """83 tokens: 80 characters, and the ends of a text, of a batch's rows and of what is known."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate([PAD, UNKNOWN, END, *CHARACTERS])}
    tokenizer: Any = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
