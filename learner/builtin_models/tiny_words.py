"""Two models from nothing that read words of English and Chinese: one token a word, one a Chinese character.

Llamas of 1.6 M and 0.3 M parameters with the same tokenizer. (Of a Qwen2 transformers would load Qwen2's own tokenizer
class, which splits texts at other places than tokenizer.json says.)
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayzero.learner.builtin_models.tiny_model import CHAT_TEMPLATE, END, PAD, UNKNOWN

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
LARGE = {
    "hidden_size": 192,
    "intermediate_size": 448,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
}
SMALL = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
PATTERN = r"<think>|</think>|\\boxed\{| ?[a-z]+|[\s\S]"


def save_words_model(directory: Path, seed: int, small: bool = False) -> None:
    """Write a randomly initialised model with its tokenizer in Hugging Face format; equal seeds give equal ones."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = word_tokenizer()
    sizes = SMALL if small else LARGE
    config = LlamaConfig(
        **sizes,
        head_dim=64,
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def vocabulary() -> list[str]:
    """All tokens in order."""
    spaced = [" " + word for word in (*_NUMBERS.split(), *_TALK.split())]
    return [PAD, UNKNOWN, END, *SIGNS, *FIRST_WORDS, *spaced, *CHINESE]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word with its space, a sign, a digit or a Chinese character is a token; other letters are unknown."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = {token: index for index, token in enumerate(vocabulary())}
    tokenizer: Any = Tokenizer(models.WordLevel(known, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=128,
    )
