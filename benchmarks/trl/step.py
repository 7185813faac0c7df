"""TRL's GRPOTrainer on the same tokens: its own loss, backward, clipping and optimizer, tuned as well as it goes."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayzero.services.schema.messages import Group

MICROBATCHES = (4, 8, 16, 32)


def is_installed() -> bool:
    """TRL is a development dependency."""
    return importlib.util.find_spec("trl") is not None


def measure(model: Path, groups: list[Group], dtype: str, repeats: int) -> dict[str, Any]:
    """Seconds of one optimizer step on `groups` with the best micro-batch, and the settings used.

    Completions are padded to the longest of the batch and prompts to the longest prompt, as TRL's own batches are.
    """
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        trainer = _trainer(model, dtype, Path(folder))
        batch = _padded(groups, trainer.model.device)
        rows = len(batch["advantages"])
        trials = _trials(trainer, batch, [size for size in MICROBATCHES if size <= rows])
        best = min(trials, key=lambda size: trials[size])
        seconds = sorted(_seconds(trainer, batch, best, rows_used=rows) for _ in range(repeats))[repeats // 2]
    import trl

    return {
        "seconds": seconds,
        "padded_tokens": int(batch["prompt_ids"].numel() + batch["completion_ids"].numel()),
        "settings": f"TRL {trl.__version__}, {dtype} autocast, no checkpointing, beta 0, micro-batch {best} of "
        f"{sorted(trials)}, fused AdamW",
    }


def best_microbatch(model: Path, groups: list[Group], dtype: str, sizes: Sequence[int]) -> int:
    """The one of `sizes` that takes least time a sample."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        trainer = _trainer(model, dtype, Path(folder))
        batch = _padded(groups, trainer.model.device)
        trials = _trials(trainer, batch, sizes)
    return min(trials, key=lambda size: trials[size])


def _trials(trainer: Any, batch: dict[str, Tensor], sizes: Sequence[int]) -> dict[int, float]:
    """Seconds a sample, by micro-batch, after one step that warms up. What a GPU has no memory for is left out."""
    _seconds(trainer, batch, sizes[0], rows_used=sizes[0])
    trials = {}
    for size in sizes:
        with contextlib.suppress(torch.OutOfMemoryError):
            trials[size] = _seconds(trainer, batch, size, rows_used=size) / size
    return trials


def _trainer(model: Path, dtype: str, folder: Path) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    cpu = not torch.cuda.is_available()
    config = GRPOConfig(
        output_dir=str(folder), bf16=dtype == "bfloat16", use_cpu=cpu, gradient_checkpointing=False, beta=0.0,
        per_device_train_batch_size=8, num_generations=8, loss_type="grpo", report_to="none", optim="adamw_torch_fused",
        model_init_kwargs={"dtype": "float32"}, disable_tqdm=True, learning_rate=1e-6,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=str(model),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["x"] * 8}),
    )
    trainer.create_optimizer()
    # Generation is not what is measured: batches come ready made.
    trainer._prepare_inputs = lambda inputs: inputs
    trainer.model.train()
    return trainer


def _seconds(trainer: Any, batch: dict[str, Tensor], size: int, rows_used: int) -> float:
    """One optimizer step on the first `rows_used` rows."""
    trainer.current_gradient_accumulation_steps = math.ceil(rows_used / size)
    started = time.perf_counter()
    for start in range(0, rows_used, size):
        part = {name: tensor[start : start + size] for name, tensor in batch.items() if tensor.ndim}
        trainer.training_step(trainer.model, part | {"num_items_in_batch": batch["num_items_in_batch"]}, None)
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    trainer.optimizer.step()
    trainer.model.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _padded(groups: list[Group], device: torch.device) -> dict[str, Tensor]:
    prompts = [group.prompt_token_ids for group in groups for _ in group.rollouts]
    completions = [rollout.completion.token_ids for group in groups for rollout in group.rollouts]
    prompt_ids, prompt_mask = _block(prompts, left=True)
    completion_ids, completion_mask = _block(completions, left=False)
    batch = {
        "prompt_ids": prompt_ids, "prompt_mask": prompt_mask,
        "completion_ids": completion_ids, "completion_mask": completion_mask,
        "advantages": torch.tensor([1.0 if row % 2 else -1.0 for row in range(len(prompts))]),
        "num_items_in_batch": completion_mask.sum(),
    }  # fmt: skip
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _block(rows: list[np.ndarray[Any, Any]], left: bool) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.int64), torch.zeros(len(rows), width, dtype=torch.int64)
    for number, row in enumerate(rows):
        at = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, at] = torch.from_numpy(row.astype(np.int64))
        mask[number, at] = 1
    return ids, mask
