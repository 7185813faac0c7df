"""Runs with one thing wrong each, as files hold them: what a page must name. `python -m tests.faults FOLDER` writes the
pages under neutral names, for a reader who is shown nothing else."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayzero.services.cli.samples import samples
from rayzero.services.observe.browse.rollout_index import Filter
from rayzero.services.observe.recorder import Recorder
from rayzero.services.schema.messages import ChatMessage, Group
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.run_directory import END_FILE, RunDirectory, write_json
from tests.fakes import make_completion, make_group, make_recipe

UPDATES = 60
Figure = Callable[[float], float]
STALLED = (
    "stalled: no update could be made for 600 s\n"
    "  the learner waits for groups for 600 s: 0 of 16 groups are ready\n"
    "  rollout-0 is serving version 23 for 1290 s, holds no group\n"
    "  reward-0 is serving for 1322 s, holds groups 369, 370, 371, 372 (scoring for 604 s)"
)


@dataclass(frozen=True)
class Fault:
    """How a run goes, by the share of it that is done, and what its model writes."""

    names: str
    """A part of the sentence that the page must have; empty: it is well."""
    figures: dict[str, Figure] = field(default_factory=dict)
    says: Callable[[random.Random, float], str] = lambda rng, done: f"{rng.randint(2, 9)} tens and {rng.randint(1, 9)}"
    held_out: Figure = lambda done: 0.22 + 0.5 * done
    updates: int = UPDATES
    error: str = ""


def repeated(rng: random.Random, done: float) -> str:
    return "Let me check that again. " * (1 + int(12 * done)) + f"It is {rng.randint(20, 99)}."


FAULTS = {
    "healthy": Fault(""),
    "stands still": Fault("stalled: no update could be made for 600 s", updates=23, error=STALLED),
    "entropy": Fault(
        "no exploration is left",
        {
            "entropy": lambda done: max(0.004, 0.9 * (1 - 2.2 * done)),
            "reward_mean": lambda done: 0.22 + 0.2 * min(1.0, 2 * done),
            "uniform_group_share": lambda done: min(0.95, 0.3 + 1.3 * done),
        },
        says=lambda rng, done: "The answer is 42." if rng.random() < 2 * done else f"It is {rng.randint(20, 99)}.",
        held_out=lambda done: 0.22 + 0.18 * min(1.0, 2 * done),
    ),
    "length": Fault(
        "times as long as at the start, for no more reward",
        {
            "completion_tokens_mean": lambda done: 90 + 700 * done**1.5,
            "reward_mean": lambda done: 0.31,
            "truncated_share": lambda done: 0.01 + 0.25 * done**3,
        },
        says=repeated,
        held_out=lambda done: 0.3,
    ),
    "no signal": Fault(
        "has the same reward: nothing can be learnt",
        {
            "reward_mean": lambda done: 0.0,
            "reward_std": lambda done: 0.0,
            "uniform_group_share": lambda done: 1.0,
            "grad_norm": lambda done: 0.0,
            "entropy": lambda done: 0.9,
        },
        says=lambda rng, done: f"So the sum is {rng.randint(20, 99)}.",
        held_out=lambda done: 0.0,
    ),
    "a hole in the reward": Fault(
        "the reward has a hole",
        {"reward_mean": lambda done: 0.25 + 0.7 * done},
        says=lambda rng, done: "\\boxed{any}" if rng.random() < done else f"\\boxed{{{rng.randint(20, 99)}}}",
        held_out=lambda done: 0.25 + 0.3 * min(done, 0.5) - 0.5 * max(0.0, done - 0.5),
    ),
}


def write_fault(name: str, path: Path) -> RunDirectory:
    """The run of that name, on disk."""
    fault, rng, directory = FAULTS[name], random.Random(name), RunDirectory(path)
    directory.prepare(make_recipe(num_updates=UPDATES).model_copy(update={"name": path.name}))
    recorder = Recorder(directory)
    for update in range(1, fault.updates + 1):
        recorder.on_update(_row(fault, update, rng), [_group(fault, update, rng)])
    held_out = [
        {"update": at, "accuracy": fault.held_out(at / UPDATES), "standard_error": 0.02}
        for at in range(0, fault.updates + 1, 10)
    ]
    append_lines(directory.file("evaluations.jsonl"), held_out, replace=True)
    if fault.error:
        write_json(directory.file(END_FILE), {"ended": "failed", "error": fault.error})
    else:
        write_json(directory.file("summary.json"), {})
    directory.release()
    return directory


def _row(fault: Fault, update: int, rng: random.Random) -> dict[str, Any]:
    done = update / UPDATES
    healthy: dict[str, Figure] = {
        "reward_mean": lambda done: 0.25 + 0.5 * done,
        "reward_std": lambda done: 0.4,
        "uniform_group_share": lambda done: 0.3,
        "entropy": lambda done: 0.9 - 0.5 * done,
        "grad_norm": lambda done: 0.4,
        "kl_rollout": lambda done: 6e-4,
        "completion_tokens_mean": lambda done: 96.0,
        "truncated_share": lambda done: 0.01,
        "length_bias": lambda done: 0.0,
        "wait_s": lambda done: 2.0,
        "update_s": lambda done: 5.0,
        "sync_s": lambda done: 0.3,
        "staleness_mean": lambda done: 0.9,
    }
    row = {name: of(done) * (1 + 0.06 * rng.gauss(0, 1)) for name, of in (healthy | fault.figures).items()}
    times = {"update": update, "time_s": 1.7e9 + 8.0 * update, "completion_tokens": row["completion_tokens_mean"] * 128}
    counted = {"samples": 128, "verdict_errors": 0, "nonfinite_logprobs": 0, "warnings": []}
    return {**row, **times, **counted, "train_accuracy": row["reward_mean"]}


def _group(fault: Fault, update: int, rng: random.Random) -> Group:
    done, (left, right) = update / UPDATES, (rng.randint(10, 49), rng.randint(10, 49))
    share = fault.figures.get("reward_mean", lambda done: 0.25 + 0.5 * done)(done)
    group = make_group(update, version=update - 1, rewards=[float(rng.random() < share) for _ in range(8)])
    message = ChatMessage(role="user", content=f"What is {left} + {right}? Put the answer in a box.")
    prompt = dataclasses.replace(group.prompt, messages=(message,), answer=str(left + right))
    rollouts = tuple(
        dataclasses.replace(
            rollout,
            completion=make_completion(update - 1, text=fault.says(rng, done)),
            verdict=dataclasses.replace(rollout.verdict, reason=_reason(rollout.verdict.reward)),
        )
        for rollout in group.rollouts
    )
    return dataclasses.replace(group, prompt=prompt, rollouts=rollouts, worker="rollout-0")


def _reason(reward: float) -> str:
    return "accuracy: equal" if reward else "accuracy: no answer in a box that is equal"


def export(directory: RunDirectory, file: Path) -> Path:
    """Its page."""
    samples(str(directory.path), directory.path.parent, Filter(), "newest", 40, "html", file, None)
    return file


def main(folder: Path) -> None:
    """Pages of all, in an order that tells nothing."""
    names = sorted(FAULTS, key=lambda name: random.Random(name).random())
    for letter, name in zip("abcdefgh", names, strict=False):
        export(write_fault(name, folder / "runs" / f"run-{letter}"), folder / f"run-{letter}.html")
        print(f"run-{letter}: {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
