"""Tiny models that tests build for themselves: no download, saved like any Hugging Face checkpoint."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS, PAD, UNKNOWN = "<|start|>", "<|end|>", "<|pad|>", "<|unknown|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token a printable ASCII character, with a chat template in the usual shape."""
    characters = [character for character in string.printable if character not in "\t\r\x0b\x0c"]
    vocabulary = {token: index for index, token in enumerate([PAD, UNKNOWN, BOS, EOS, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[BOS],
        chat_template=CHAT_TEMPLATE,
    )


def build_tiny_model(
    path: Path,
    *,
    seed: int = 0,
    hidden_size: int = 64,
    num_layers: int = 2,
    head_dim: int = 32,
    tied: bool = True,
    redundant_head: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Path:
    """Save a random Llama of about 0.1 M parameters with its tokenizer under `path`, and return `path`.

    `redundant_head`: the file holds a tied model's output head once more, as Qwen3-0.6B is published.
    `head_dim` must be one that vLLM's CPU attention has (32, 64, 80, 96, 112, 128 …; 48 is not).
    """
    tokenizer = character_tokenizer()
    num_heads = hidden_size // head_dim
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=max(1, num_heads // 2),
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.to(getattr(torch, dtype)).save_pretrained(path)
    if redundant_head:
        tensors = load_file(path / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(path)
    return path


def build_tiny_mixture(path: Path, kind: str, *, seed: int = 0) -> Path:
    """Save a random mixture of experts (`mixtral` or `qwen3_moe`) with its tokenizer under `path`, and return `path`.

    Its routers tell tokens apart: with transformers' own start values all experts would be about as likely.
    """
    tokenizer = character_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 1024,
        "num_experts_per_tok": 2, "initializer_range": 0.2, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    own = {
        "mixtral": {"num_local_experts": 4},
        "qwen3_moe": {"num_experts": 8, "moe_intermediate_size": 32, "norm_topk_prob": True},
    }
    config = AutoConfig.for_model(kind, **sizes, **own[kind])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
