"""The models that steps use: the demo's, where it is installed; else random weights of a published shape."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.planning.models import BUILT_IN
from rayzero.services.planning.published_shapes import PUBLISHED
from tests.gpu.hour.context import Context

DEMO = "smollm2-135m-instruct"
SMALL = "Qwen/Qwen3-0.6B"
LARGE = "Qwen/Qwen3-4B"
TINY = "tiny-addition"
NUM_PROMPTS = 4096


def has_demo_model() -> bool:
    """Whether SmolLM2's weights are installed: they are a Python package of their own."""
    try:
        version(BUILT_IN[DEMO].package or "")
    except PackageNotFoundError:
        return False
    return True


def random_model(context: Context, name: str) -> Path:
    """A directory with random weights of the shape of `name`; no token of them ends a completion. The first step that
    asks makes it, and a directory of that name is always whole."""
    directory = context.models / name.replace("/", "--")
    if not directory.is_dir():
        from benchmarks.random_model import save_random_model

        made = context.scratch / "model"
        with torch.device(context.device):  # billions of random numbers: a GPU draws them sooner
            save_random_model(shape_of(name), made)
        try:
            made.rename(directory)
        except OSError:  # another step, side by side with this one, was first
            shutil.rmtree(made)
    return directory


def shape_of(name: str) -> ModelShape:
    """Of a built-in or published model."""
    return BUILT_IN[name].shape if name in BUILT_IN else PUBLISHED[name]


def random_recipe(context: Context, name: str, group: int, tokens: int) -> Path:
    """A recipe for `random_model`: rewards that are as random as its completions, so that every group teaches
    something; prompts of a few characters; completions of exactly `tokens`."""
    prompts = context.scratch / "prompts.jsonl"
    lines = [json.dumps({"prompt": f"{number}+{number % 7}=", "answer": "0"}) for number in range(NUM_PROMPTS)]
    prompts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = {
        "name": "first-hour",
        "model": {"path": str(random_model(context, name))},
        "data": {"train": [{"kind": "jsonl", "path": str(prompts)}]},
        "rollout": {"prompt_template": "text", "sampling": {"max_tokens": tokens}, "max_model_tokens": tokens + 64},
        "reward": {"rubrics": {"default": {"luck": {"kind": "custom", "function": "tests.gpu.hour.rewards:luck"}}}},
        "learner": {"optimizer": {"learning_rate": 1e-6}},
        "training": {"num_updates": 5, "groups_per_update": 32, "group_size": group},
        "evaluation": {"every_updates": 0, "num_prompts": 8},
        "checkpoint": {"every_updates": 0},
    }
    path = context.scratch / "recipe.yaml"
    path.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")  # JSON is YAML
    return path
