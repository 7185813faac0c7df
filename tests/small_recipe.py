"""A recipe with its model, data and functions in one directory, as far as anything is looked at before a run starts."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import yaml

from tests.models import character_tokenizer

NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}Q: "
ROWS = [{"prompt": f"{number}+1=", "answer": str(number + 1)} for number in range(12)]
REWARDS = """
def fine(completions, **_):
    return [1.0] * len(completions)
def one(completions, **_):
    return [1.0]
"""
SOURCE = """
import decimal
def rows(bad=False):
    for number in range(12):
        yield {"prompt": f"{number}+2=", "answer": decimal.Decimal(number) if bad else str(number)}
"""


def write_model(directory: Path) -> Path:
    """A model's directory as far as it is looked at before anything loads it."""
    tokenizer = character_tokenizer()
    tokenizer.save_pretrained(directory)
    config = {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": len(tokenizer), "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "max_position_embeddings": 256, "tie_word_embeddings": True,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    return directory


def write_place(place: Path, model: Path) -> Path:
    """A working directory with a model, data, a recipe, and a user's own modules under names that rayzero has, too."""
    for file in model.iterdir():
        (place / "model").mkdir(exist_ok=True)
        (place / "model" / file.name).write_bytes(file.read_bytes())
    (place / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (place / "held.jsonl").write_text(json.dumps({"prompt": "9-1=", "answer": "8"}) + "\n")
    (place / "rewards.py").write_text(REWARDS)
    (place / "my_rewards.py").write_text(REWARDS)
    (place / "my_source.py").write_text(SOURCE)
    recipe = {
        "name": "mini",
        "model": {"path": "model", "dtype": "float32"},
        "data": {
            "train": [{"kind": "jsonl", "path": "train.jsonl"}],
            "held_out": [{"kind": "jsonl", "path": "held.jsonl"}],
        },
        "rollout": {"max_model_tokens": 64, "sampling": {"max_tokens": 8}, "kv_cache_bytes": 2**26, "device": "cpu"},
        "reward": {"rubrics": {"default": {"r": {"kind": "custom", "function": "my_rewards:fine"}}}},
        "training": {"num_updates": 2, "groups_per_update": 2, "group_size": 2},
        "evaluation": {"num_prompts": 1},
    }
    (place / "mini.yaml").write_text(yaml.safe_dump(recipe))
    return place
