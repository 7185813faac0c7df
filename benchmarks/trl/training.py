"""TRL's GRPOTrainer on a recipe's task, in a process of its own: `python -m benchmarks.trl.training SPEC.json`.

The spec's `out` gets one JSON object a line: the settings, a row an update, a row an evaluation, and how it ended.
Prompts and their order, rendering, rewards, schedule and held-out prompts are the recipe's, by rayzero's own code;
generation, advantages, loss, backward and the loop are TRL's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.trl.judge import Judge
from benchmarks.trl.trainer import Task, describe, fastest_microbatch, load_task, make_trainer
from rayzero.rollout_workers.completions import eos_token_ids
from rayzero.services.loop.evaluation import is_accurate
from rayzero.services.schema.config.loader import validate_recipe
from rayzero.services.schema.errors import RayzeroError, RunHalted
from rayzero.services.schema.messages import Prompt
from rayzero.services.store.json_lines import append_lines

EVALUATION_SEED = 2**31


@dataclass(frozen=True, kw_only=True, slots=True)
class TrlSpec:
    """What is asked of one training."""

    recipe: dict[str, Any]
    """Resolved; its seed is this training's."""
    model: str
    """A model directory."""
    stop_at: float
    """Held-out accuracy at which it ends."""
    limit_s: float
    """Seconds of training after which it ends."""
    micro_batch: int
    """Samples in one forward pass; 0: the fastest is measured first."""
    as_installed: bool
    """Without the allocator that rayzero's processes have: how its parent has started this process."""
    out: str
    """The file of JSON lines."""


class Stopwatch:
    """Seconds that count."""

    def __init__(self) -> None:
        """Stands still at 0."""
        self._counted, self._since = 0.0, 0.0
        self._is_running = False

    @property
    def seconds(self) -> float:
        """So far."""
        return self._counted + (time.monotonic() - self._since if self._is_running else 0.0)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It stands still within, and runs afterwards."""
        self._counted, self._is_running = self.seconds, False
        try:
            yield
        finally:
            self._since, self._is_running = time.monotonic(), True


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes down every update, evaluates where the recipe does, and ends the training when it may end."""

    def __init__(self, spec: TrlSpec, task: Task, judge: Judge) -> None:
        """`trainer` is set before the training begins."""
        self.trainer: Any = None
        self.ended = "updates"
        self.clock = Stopwatch()
        self._spec, self._task, self._recipe, self._judge = spec, task, task.recipe, judge
        self._rewards: list[float] = []

    def reward(self, completion_ids: list[list[int]], number: list[int], **_: Any) -> list[float | None]:
        """TRL's reward function: the recipe's rubric. None, which TRL leaves out, where there is no verdict."""
        rollouts = self._judge.judge([self._task.prompts[index] for index in number], completion_ids)
        values = [None if r.verdict.is_error else r.verdict.reward for r in rollouts]
        self._rewards += [value for value in values if value is not None]
        return values

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The untrained model."""
        with self.clock.stopped():
            self._evaluate(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One update is done."""
        with self.clock.stopped():
            update, every = state.global_step, self._recipe.evaluation.every_updates
            out_of_time = self.clock.seconds > self._spec.limit_s
            reward = sum(self._rewards) / len(self._rewards) if self._rewards else None
            self._rewards = []
            self._write({"event": "update", "update": update, "reward_mean": reward})
            last = update == self._recipe.training.num_updates
            if not (last or out_of_time or (every and update % every == 0)):
                return
            reached = self._evaluate(update) >= self._spec.stop_at
            if (reached or out_of_time) and not last:
                self.ended = "reached" if reached else "time"
                control.should_training_stop = True

    def _evaluate(self, update: int) -> float:
        """The same prompts with the same random numbers every time; the training's own random state is left alone."""
        evaluation = self._recipe.evaluation
        prompts = [prompt for prompt in self._task.held_out for _ in range(evaluation.num_completions)]
        with torch.random.fork_rng(), _sampled_at(self.trainer, evaluation.temperature):
            torch.manual_seed(EVALUATION_SEED + self._recipe.seed)
            completions = [
                token_ids
                for start in range(0, len(prompts), self._recipe.training.samples_per_update)
                for token_ids in self._generate(prompts[start : start + self._recipe.training.samples_per_update])
            ]
        rollouts = self._judge.judge(prompts, completions)
        judged = [rollout for rollout in rollouts if not rollout.verdict.is_error]
        if not judged:
            raise RunHalted(f"evaluation at update {update}: every verdict is an error: {rollouts[0].verdict.reason}")
        accuracy = sum(map(is_accurate, judged)) / len(judged)
        self._write({"event": "evaluation", "update": update, "accuracy": accuracy})
        return accuracy

    def _generate(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """By TRL's own way of generating."""
        token_ids = [self._task.tokens(prompt) for prompt in prompts]
        completions, _ = self.trainer._generate_single_turn(token_ids, None, {}, 1)
        return list(completions)

    def _write(self, row: dict[str, Any]) -> None:
        samples = row["update"] * self._recipe.training.samples_per_update
        append_lines(Path(self._spec.out), [{**row, "seconds": self.clock.seconds, "samples": samples}])


def train(spec: TrlSpec) -> None:
    """Train until the level, the limit or the last update.

    Raises:
        RayzeroError: TRL would not see the tokens that rayzero trains on, or the rewards do not work.
    """
    recipe = validate_recipe(spec.recipe, {}, default_origin="the comparison's recipe")
    task = load_task(recipe, Path(spec.model))
    started_s = time.monotonic()
    micro_batch = spec.micro_batch or fastest_microbatch(task)
    settings: dict[str, Any] = {"micro_batch": micro_batch, "probe_s": time.monotonic() - started_s}
    judge = Judge(recipe, task.tokenizer, eos_token_ids(task.tokenizer, task.model))
    with tempfile.TemporaryDirectory(prefix="rayzero-trl-") as folder, judge:
        watch = Watch(spec, task, judge)
        watch.trainer = make_trainer(task, micro_batch, Path(folder), watch.reward, watch)
        text = describe(watch.trainer, recipe, micro_batch)
        append_lines(Path(spec.out), [{"event": "settings", **settings, "text": text}])
        watch.trainer.train()
    append_lines(Path(spec.out), [{"event": "end", "ended": watch.ended}])


@contextlib.contextmanager
def _sampled_at(trainer: Any, temperature: float) -> Iterator[None]:
    """TRL's generation at another temperature; at 0 the most likely tokens."""
    config = trainer.generation_config
    before = (config.do_sample, config.temperature)
    config.do_sample, config.temperature = (True, temperature) if temperature else (False, 1.0)
    try:
        yield
    finally:
        config.do_sample, config.temperature = before


def _end_with_parent() -> None:
    """The parent holds its standard input: when that closes, no answer is wanted any more."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin: its lock, held by this thread, would spoil the interpreter's end
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Exit 0: it ran to its end. Errors of ours are one line on standard error."""
    _end_with_parent()
    spec = TrlSpec(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    append_lines(Path(spec.out), [{"event": "spec", "spec": asdict(spec)}], replace=True)
    try:
        train(spec)
    except RayzeroError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
