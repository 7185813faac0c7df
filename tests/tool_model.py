"""A tiny model that was taught the form of a tool call, with a chat template that TRL and rayzero take for tools."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import get_json_schema

from examples.word_game import WordGame

WORDS = ("crane", "cabin", "chair", "clock", "cloud", "cream")
QUESTION = "Guess a word of five letters."
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PRINTABLE = [chr(code) for code in range(32, 127)] + ["\n"]
NUM_STEPS = 200


def build_tool_model(folder: Path, template: str, seed: int = 0) -> Path:
    """Save a model of two layers that guesses words by calls of `guess`, and says `done` after some of them."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer(template)
    tokenizer.save_pretrained(folder)
    # Two heads of 32: vLLM's attention on CPUs has no smaller ones.
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    _teach(model, tokenizer, random.Random(seed))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    return folder


def _tool() -> dict[str, Any]:
    schema: dict[str, Any] = get_json_schema(WordGame().guess)
    return schema


def _conversation(chance: random.Random) -> list[dict[str, Any]]:
    game = WordGame()
    answer = chance.choice(WORDS)
    messages: list[dict[str, Any]] = [{"role": "user", "content": QUESTION + game.reset(answer=answer)}]
    for _ in range(chance.randint(1, 3)):
        word = chance.choice(WORDS)
        call = {"type": "function", "function": {"name": "guess", "arguments": {"word": word}}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "content": game.guess(word)})
        if game.done:
            break
    return [*messages, {"role": "assistant", "content": "done"}]


def _tokenizer(template: str) -> PreTrainedTokenizerFast:
    """One token a word of the conversations, and else one a character."""
    known = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"": 0}, unk_token="")))
    known.chat_template = template
    text = known.apply_chat_template(_conversation(random.Random(0)), tools=[_tool()], tokenize=False)
    words = sorted(
        {*re.findall(r"[A-Za-z_]{2,}", text), *WORDS, "done", "tool_call", "assistant"}, key=len, reverse=True
    )
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *words, *PRINTABLE])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join([*words, r"[\s\S]"])), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"], chat_template=template, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _teach(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, chance: random.Random) -> None:
    """Supervised, on what the assistant says alone."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 20, (NUM_STEPS - step) / 100))
    for _ in range(NUM_STEPS):
        rows = [_labelled(tokenizer, _conversation(chance)) for _ in range(4)]
        ids, labels = (torch.nn.utils.rnn.pad_sequence(list(each), True, -100) for each in zip(*rows, strict=True))
        loss = model(input_ids=ids.clamp(min=0), labels=labels).loss  # what is filled up stands behind all that counts
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def _labelled(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """[T] tokens, and the same with -100 where the assistant does not speak."""
    text = tokenizer.apply_chat_template(messages, tools=[_tool()], tokenize=False)
    ids = tokenizer.encode(text, add_special_tokens=False)
    begin = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    labels, speaks = [-100] * len(ids), False
    for at, token in enumerate(ids):
        labels[at] = token if speaks else -100
        speaks = ids[at + 1 - len(begin) : at + 1] == begin or (speaks and token != tokenizer.eos_token_id)
    return torch.tensor(ids), torch.tensor(labels)
