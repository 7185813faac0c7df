"""The real loop, `rayzero train`, in the ways that only a GPU has; figures come from the run's own metrics.jsonl."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.ledger import audit
from tests.gpu.hour.context import CLI, Context, StepFailed
from tests.gpu.hour.models import DEMO, SMALL, TINY, has_demo_model, random_recipe

CUDA = ["rollout.device=cuda"]
SHARED = [*CUDA, "cluster.colocate=shared", "cluster.weight_transport=ipc"]
CPU = ["rollout.device=cpu", "rollout.enforce_eager=true", "model.dtype=float32", "learner.compute.num_threads=1"]
GIB = 2**30
STRIKE = "strike.json"
"""What killer.py says of itself, in the run directory."""


def demo(context: Context) -> None:
    """The demo's recipe on its own model; where that is not installed, and on CPUs, the tiny model's."""
    short = ["training.num_updates=5", "evaluation.every_updates=0", "evaluation.num_prompts=16"]
    short += ["checkpoint.every_updates=0", "rollout.enforce_eager=true", "training.max_staleness=0"]
    if context.device == "cuda" and has_demo_model():
        recipe, changes = "demo", [*SHARED, "learner.compute.compile=false"]
    else:
        recipe, changes = "tiny_addition", [*SHARED, "learner.compute.compile=false"]
        short += ["cold_start.num_updates=40", "cold_start.source.arguments.num_prompts=1500"]
    if context.device == "cpu":
        changes = [*CPU, "training.groups_per_update=4", "training.group_size=4"]
    context.note(recipe=recipe)
    rows = train(context, Path("deploy/recipes") / f"{recipe}.yaml", [*short, *changes])
    context.note(**figures_of(rows))


def graphs(context: Context) -> None:
    """Engines with CUDA graphs, and new weights while completions run. The demo's shape with random weights: its own
    completions are over before new weights come."""
    overlapping(context, random_recipe(context, DEMO, group=8, tokens=768), SHARED)


def nccl(context: Context) -> None:
    """The same, learner and engine on a GPU each."""
    overlapping(context, random_recipe(context, SMALL, group=8, tokens=768), [*CUDA, "cluster.weight_transport=nccl"])


def overlapping(context: Context, recipe: Path, changes: Sequence[str]) -> None:
    """A run whose learner and engine work side by side."""
    changes = [*changes, "rollout.enforce_eager=false", "training.max_staleness=1", "training.num_updates=8"]
    changes += ["training.groups_per_update=16", "rollout.max_num_seqs=256", f"rollout.kv_cache_bytes={16 * GIB}"]
    rows = train(context, recipe, changes)
    context.note(**figures_of(rows), crossed=crossed(context.scratch / "run"))
    if not context.figures["crossed"]:
        raise StepFailed("no completion holds tokens of two versions: no weights came while the engine generated")


def colocated(context: Context) -> None:
    """Qwen3-0.6B's shape on one GPU, on-policy: 256 completions of 512 tokens an update, end to end."""
    recipe = random_recipe(context, SMALL, group=8, tokens=512)
    changes = [*SHARED, "rollout.enforce_eager=false", "training.max_staleness=0", "training.num_updates=6"]
    changes += ["rollout.max_num_seqs=256", f"rollout.kv_cache_bytes={24 * GIB}"]
    changes += ["learner.compute.tokens_per_microbatch=32768"]
    rows = train(context, recipe, changes)
    context.note(**figures_of(rows, warm_up=2))


def sleep(context: Context) -> None:
    """Learner and engine by turns."""
    changes = [*CUDA, "cluster.colocate=sleep", "cluster.weight_transport=ipc", "rollout.enforce_eager=true"]
    context.note(**figures_of(train(context, random_recipe(context, DEMO, group=8, tokens=128), [*changes, *CHECK])))


def fp8(context: Context) -> None:
    """An engine whose linear layers are quantized anew at every sync. Its KL is to be seen, not to stop the run."""
    changes = [*SHARED, "rollout.enforce_eager=true", "rollout.quantization=fp8"]
    changes += ["learner.watch.kl_warn=1.0", "learner.watch.kl_stop=1.0", "rollout.canary_max_difference=1.0"]
    context.note(**figures_of(train(context, random_recipe(context, DEMO, group=8, tokens=128), [*changes, *CHECK])))


def kill(context: Context) -> None:
    """The engine's process is killed when the third version's broadcast begins; the run must go on and lose nothing."""
    if context.device == "cuda":
        killed(
            context, random_recipe(context, DEMO, group=8, tokens=128), [*SHARED, "rollout.enforce_eager=true", *CHECK]
        )
        return
    small = ["training.groups_per_update=2", "training.num_updates=3", "rollout.sampling.max_tokens=24"]
    killed(context, random_recipe(context, TINY, group=4, tokens=48), [*CPU, *small])


def nccl_kill(context: Context) -> None:
    """The same between two GPUs, where NCCL itself would wait for the dead for ever."""
    changes = [*CUDA, "cluster.weight_transport=nccl", "rollout.enforce_eager=true", "deadlines.sync_s=30", *CHECK]
    killed(context, random_recipe(context, SMALL, group=8, tokens=128), changes)


CHECK = ["training.max_staleness=0", "training.groups_per_update=8", "learner.compute.compile=false"]
"""What finds out whether something works, and not how fast."""


def killed(context: Context, recipe: Path, changes: Sequence[str]) -> None:
    """A run with the killer beside it (killer.py), and its audit."""
    rows = train(context, recipe, changes, module="tests.gpu.hour.killer")
    strike = json.loads((context.scratch / "run" / STRIKE).read_text(encoding="utf-8"))
    found = audit(context.scratch / "run")
    hit = [row["sync_s"] for row in rows if row["update"] == strike["version"]]
    context.note(**figures_of(rows), replaced=strike["replaced"], problems=len(found.problems), back_s=max(hit))
    if found.problems:
        raise StepFailed(f"groups were lost or doubled: {'; '.join(found.problems[:3])}")
    if not strike["replaced"]:
        raise StepFailed("the engine that was killed was not replaced: the kill missed it")


def train(context: Context, recipe: Path, changes: Sequence[str], module: str = CLI) -> list[dict[str, Any]]:
    """One run; its metrics, an update a row.

    Raises:
        StepFailed: it ended with another exit code than 0, or made fewer updates than it should.
    """
    run = context.scratch / "run"
    command = [module, "train", str(recipe), *changes, "observe.api.enabled=false", "--run-dir", str(run)]
    context.run(command)
    rows = read_lines(run / "metrics.jsonl")
    updates = json.loads((run / "summary.json").read_text(encoding="utf-8"))["updates"]
    context.note(updates=len(rows))
    if not rows or len(rows) != updates:
        raise StepFailed(f"the run says that it made {updates} updates, and metrics.jsonl holds {len(rows)}")
    return rows


def figures_of(rows: Sequence[dict[str, Any]], warm_up: int = 1) -> dict[str, float]:
    """Rates and medians after the warm-up, and the worst KL of all updates."""
    counted = rows[warm_up:]
    seconds = counted[-1]["time_s"] - rows[warm_up - 1]["time_s"]

    def total(key: str) -> float:
        return float(sum(row[key] for row in counted))

    figures = {
        "kl": max((row["kl_rollout_fresh"] for row in rows if row.get("kl_rollout_fresh") is not None), default=None),
        "logprob_gap": median(row["logprob_gap_mean"] for row in rows if row.get("logprob_gap_mean") is not None),
        "sync_s": median(row["sync_s"] for row in counted),
        "pause_s": median(row["sync_pause_s"] for row in counted),
        "receive_s": median(row["sync_receive_s"] for row in counted),
        "update_s": median(row["update_s"] for row in counted),
        "tokens_per_s": total("completion_tokens") / seconds,
        "rollout_tokens_per_s": total("completion_tokens") / max(total("wait_s"), 1e-9),
        "learner_tokens_per_s": total("trained_tokens") / max(total("update_s"), 1e-9),
    }
    return {name: value for name, value in figures.items() if value is not None}


def crossed(run: Path) -> int:
    """Completions, in all recorded rollouts, whose tokens are of more than one version."""
    files = sorted((run / "rollouts").glob("update_*.jsonl"))
    return sum(len(row["versions"]) > 1 for file in files for row in read_lines(file))
