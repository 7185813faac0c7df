"""TRL's GRPOTrainer set up to do a recipe's task as rayzero does it: prompts, order, tokens, optimizer and schedule."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from benchmarks.trl.step import MICROBATCHES, best_microbatch
from rayzero.learner.update.optimizer import learning_rate
from rayzero.rollout_workers.templates import TEMPLATES, render
from rayzero.services.bench.length_mix import LengthMix, make_groups
from rayzero.services.data.prompts import load_prompts
from rayzero.services.run.preflight import prompt_source
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RayzeroError
from rayzero.services.schema.messages import Prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What both sides do."""

    recipe: Recipe
    model: Path
    prompts: tuple[Prompt, ...]
    """Of the whole training, in the order in which rayzero takes them."""
    held_out: tuple[Prompt, ...]
    tokenizer: Any

    def tokens(self, prompt: Prompt) -> list[int]:
        """A prompt as rayzero trains on it."""
        return list(render(prompt, self.recipe.rollout, self.tokenizer)[1].tolist())


def load_task(recipe: Recipe, model: Path) -> Task:
    """Read everything that the recipe names. Raises RecipeError as `rayzero train` does."""
    mix, held_out = load_prompts(recipe.data, num_held_out=recipe.evaluation.num_prompts)
    stream = prompt_source(recipe, mix)
    num_prompts = recipe.training.num_updates * recipe.training.groups_per_update
    return Task(
        recipe=recipe,
        model=model,
        prompts=tuple(stream.next() for _ in range(num_prompts)),
        held_out=held_out,
        tokenizer=AutoTokenizer.from_pretrained(model, padding_side="left"),
    )


def make_trainer(task: Task, micro_batch: int, folder: Path, reward: Callable[..., Any], watch: TrainerCallback) -> Any:
    """Ready to train. Rewards are asked for with `completion_ids` and `number`, a prompt's place in the task.

    Raises:
        RayzeroError: TRL makes other tokens of the prompts than rayzero.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    recipe = task.recipe
    training, sampling = recipe.training, recipe.rollout.sampling
    loss, optimizer = recipe.learner.loss, recipe.learner.optimizer
    assert loss.name == "grpo"
    policy = AutoModelForCausalLM.from_pretrained(task.model, dtype=torch.float32)
    config = GRPOConfig(
        output_dir=str(folder), seed=recipe.seed, use_cpu=True, bf16=recipe.model.dtype == "bfloat16",
        max_steps=training.num_updates, num_generations=training.group_size, per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=training.samples_per_update // micro_batch, shuffle_dataset=False,
        max_completion_length=sampling.max_tokens, temperature=sampling.temperature, top_p=1.0, top_k=0,
        loss_type="grpo", epsilon=loss.clip_low, epsilon_high=loss.clip_high, beta=0.0, scale_rewards="group",
        max_grad_norm=optimizer.max_grad_norm, gradient_checkpointing=False, disable_tqdm=True, report_to="none",
        save_strategy="no", logging_strategy="no",
    )  # fmt: skip
    given = [_trl_prompt(task, prompt) for prompt in task.prompts]
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": given, "number": list(range(len(given)))}),
        callbacks=[watch],
        processing_class=task.tokenizer,
        optimizers=_optimizer(policy, recipe),
    )
    _check_tokens(trainer, task)
    return trainer


def fastest_microbatch(task: Task) -> int:
    """Measured on random tokens of the task's lengths."""
    training, max_tokens = task.recipe.training, task.recipe.rollout.sampling.max_tokens
    lengths = [len(task.tokens(prompt)) for prompt in task.prompts[: training.groups_per_update]]
    mix = LengthMix(
        "probe", training.groups_per_update, training.group_size, (min(lengths), max(lengths)), max_tokens / 2, 0.3,
        max_tokens,
    )  # fmt: skip
    groups = make_groups(mix, len(task.tokenizer))
    return best_microbatch(task.model, groups, task.recipe.model.dtype, _microbatches(task.recipe))


def describe(trainer: Any, recipe: Recipe, micro_batch: int) -> str:
    """TRL's settings in words."""
    import trl

    compute = "fp32 weights under bf16 autocast" if trainer.args.bf16 else "fp32"
    allocator = "tcmalloc" if "tcmalloc" in os.environ.get("LD_PRELOAD", "") else "the C library's allocator"
    return (
        f"TRL {trl.__version__} GRPOTrainer, {compute}, no gradient checkpointing, beta 0, micro-batch {micro_batch} "
        f"(the fastest of {', '.join(map(str, _microbatches(recipe)))}), fused AdamW; generation by transformers, "
        f"{recipe.training.samples_per_update} completions at a time (TRL's vLLM mode needs a GPU); "
        f"{torch.get_num_threads()} threads, {allocator}"
    )


def _check_tokens(trainer: Any, task: Task) -> None:
    """Both sides train on the same tokens, or nothing is to be compared."""
    prompts = task.prompts[: task.recipe.training.groups_per_update]
    theirs = trainer._tokenize_prompts([_trl_prompt(task, prompt) for prompt in prompts])[0]
    if [list(row) for row in theirs] != [task.tokens(prompt) for prompt in prompts]:
        raise RayzeroError("TRL renders this recipe's prompts to other tokens than rayzero: nothing can be compared")


def _optimizer(policy: torch.nn.Module, recipe: Recipe) -> tuple[Any, Any]:
    """The recipe's AdamW and its rate at every update."""
    settings, num_updates = recipe.learner.optimizer, recipe.training.num_updates
    parameters = list(policy.parameters())
    adam = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        fused=True,
    )
    return adam, torch.optim.lr_scheduler.LambdaLR(
        adam, lambda update: learning_rate(update, num_updates, settings) / settings.learning_rate
    )


def _trl_prompt(task: Task, prompt: Prompt) -> Any:
    """Messages where the model's own template renders them, else the text."""
    template = task.recipe.rollout.prompt_template
    if template == "chat":
        return [{"role": message.role, "content": message.content} for message in prompt.messages]
    return TEMPLATES[template](prompt.messages, task.tokenizer, ())


def _microbatches(recipe: Recipe) -> list[int]:
    """Micro-batches that divide an update."""
    samples = recipe.training.samples_per_update
    return [size for size in MICROBATCHES if samples % size == 0] or [samples]
