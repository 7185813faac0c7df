"""A learner sharded over two processes, each with a GPU: updates, a checkpoint, the same resumed, and what it took.

    python -m tests.gpu.hour.shards --model DIR --folder DIR --device cuda --rank 0 --port 29500 --tokens 16384

With `--device cpu` the ranks meet over gloo: the same code, where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rayzero.learner.model.policy import Policy
from rayzero.learner.model.ranks import full, join, leave
from rayzero.learner.update.checkpoint import load_learner, save_learner
from rayzero.learner.update.learner import Learner
from rayzero.services.planning.memory_plan import learner_parts
from rayzero.services.planning.model_shape import read_shape
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.messages import Group
from rayzero.services.schema.weights import Rendezvous
from tests.gpu.hour.context import ROOT, Context, StepFailed
from tests.gpu.hour.models import SMALL, random_model
from tests.unit.learner.kit import make_group

WORLD_SIZE = 2
DEADLINE_S = 240.0
UPDATES = (2, 2)
"""Before and after the checkpoint."""
GROUP_SIZE = 8
LARGEST_DIFFERENCE = 0.2
"""Of a resumed learner from one that was not interrupted, in lengths of the way that both went. On CPUs it is 0; a
GPU's attention adds up its gradients in another order every time, and Adam's first steps are little but their signs."""


def step(context: Context) -> None:
    """Qwen3-0.6B's shape on two GPUs, beside what the memory plan counts for it."""
    tokens = 16384
    told = run_ranks(random_model(context, SMALL), context.scratch / "shards", context.device, tokens)
    plan = planned_bytes(random_model(context, SMALL), tokens)
    peak = max(one["peak_bytes"] for one in told)
    context.note(
        updates=f"{UPDATES[0]} and {UPDATES[1]}",
        resume_difference=max(one["resume_difference"] for one in told),
        seconds=told[0]["seconds"],
        peak_gib=peak / 2**30,
        plan_gib=plan / 2**30,
        of_plan=peak / plan,
    )
    if not context.figures["resume_difference"] <= LARGEST_DIFFERENCE:
        raise StepFailed("what was resumed from the checkpoint is not what went on without it")


def planned_bytes(model: Path, tokens: int) -> int:
    """What services/planning/memory_plan.py counts on each of two GPUs, CUDA's own memory left out: torch does not see
    it."""
    recipe = Recipe.model_validate({
        "name": "shards",
        "model": {"path": str(model), "dtype": "bfloat16"},
        "data": {"train": [{"kind": "jsonl", "path": "unused.jsonl"}]},
        "reward": {"rubrics": {"default": {"accuracy": {"kind": "math"}}}},
        "training": {"num_updates": 1, "groups_per_update": 16, "group_size": GROUP_SIZE},
        "cluster": {"learner_gpus": WORLD_SIZE},
        "rollout": {"max_model_tokens": 2048},
        "learner": {"compute": {"tokens_per_microbatch": tokens}},
    })  # fmt: skip
    parts = learner_parts(recipe, read_shape(model), checkpointing=False, offload=False)
    return sum(size for name, size in parts.items() if name != "CUDA")


def run_ranks(model: Path, folder: Path, device: str, tokens: int) -> list[dict[str, Any]]:
    """Two ranks to their end; what each says of itself.

    Raises:
        StepFailed: one of them failed; its output is above.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {"model": model, "folder": folder, "device": device, "port": port, "tokens": tokens}
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.hour.shards", *options, "--rank", str(rank)],
            cwd=ROOT,
            env=os.environ | ({"CUDA_VISIBLE_DEVICES": str(rank)} if device == "cuda" else {}),
        )
        for rank in range(WORLD_SIZE)
    ]
    try:
        codes = [process.wait(timeout=DEADLINE_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(codes):
        raise StepFailed(f"the ranks ended with exit codes {codes}")
    return [json.loads((folder / f"rank_{rank}.json").read_text(encoding="utf-8")) for rank in range(WORLD_SIZE)]


def run_rank(model: Path, folder: Path, device: str, rank: int, port: int, tokens: int) -> dict[str, Any]:
    """One rank: updates, a checkpoint, more updates; then the same from the checkpoint on."""
    rendezvous = Rendezvous(host="127.0.0.1", port=port, world_size=WORLD_SIZE)
    ranks, small = join(rank, rendezvous, device, deadline_s=DEADLINE_S), device == "cpu"
    settings = LearnerSettings.model_validate({
        "compute": {"tokens_per_microbatch": tokens},
        "optimizer": {"learning_rate": 1e-4},
        "watch": {"kl_warn": 1e9, "kl_stop": 1e9, "ess_warn": 0, "ess_stop": 0},
    })  # fmt: skip
    dtype = "float32" if small else "bfloat16"
    policy = Policy(model, dtype=dtype, device=device, compute=settings.compute, ranks=ranks)
    learner = Learner(policy, settings, num_updates=10, max_completion_tokens=2048)
    seconds = [update(learner, version, small) for version in range(1, UPDATES[0] + 1)]
    save_learner(learner, folder / "checkpoint")
    saved = masters(policy)
    ranks.gather(None)  # rank 0 has written it
    after = range(UPDATES[0] + 1, sum(UPDATES) + 1)
    seconds += [update(learner, version, small) for version in after]
    straight = masters(policy)
    load_learner(learner, folder / "checkpoint")
    for version in after:
        update(learner, version, small)
    return {
        "seconds": seconds,
        "resume_difference": float((masters(policy) - straight).norm() / (straight - saved).norm()),
        "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
    }


def update(learner: Learner, version: int, small: bool) -> float:
    """Make the update; its seconds."""
    found = learner.update(groups(version, small), version).metrics
    return float(sum(value for name, value in found.items() if name.endswith("_s")))


def masters(policy: Policy) -> torch.Tensor:
    """[parameters] fp32 on the host, put together from all ranks."""
    return torch.cat([full(weight.detach()).float().flatten().cpu() for _, weight in policy.named_parameters()])


def groups(version: int, small: bool) -> list[Group]:
    """Random tokens; the same ones for a version."""
    rng = np.random.default_rng(version)
    number, longest, prompt = (3, 20, 8) if small else (16, 1600, 200)
    rewards = [float(row % 2) for row in range(GROUP_SIZE)]
    lengths = rng.integers(2, longest, (number, GROUP_SIZE)).tolist()
    return [make_group(rng, row, rewards, prompt_length=prompt, group_id=index) for index, row in enumerate(lengths)]


def main(arguments: Sequence[str] | None = None) -> None:
    """One rank, in its own process."""
    parser = argparse.ArgumentParser(description="One of two ranks of a sharded learner.")
    for name, kind in {"model": Path, "folder": Path, "device": str, "rank": int, "port": int, "tokens": int}.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    given = parser.parse_args(arguments)
    told = run_rank(given.model, given.folder, given.device, given.rank, given.port, given.tokens)
    (given.folder / f"rank_{given.rank}.json").write_text(json.dumps(told) + "\n", encoding="utf-8")
    leave()


if __name__ == "__main__":
    main()
