"""`rayzero train`: from a recipe to a finished run directory.

load recipe ─► preflight (nothing started yet) ─► Ray ─► actors ─► cold start ─► controller ─► summary
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from rayzero.services.fleet.learner_supervisor import LearnerSupervisor
from rayzero.services.loop.canary import Canary
from rayzero.services.loop.checkpointer import Checkpointer, go_on_from
from rayzero.services.loop.controller import Controller
from rayzero.services.loop.evaluation import Evaluator
from rayzero.services.loop.group_buffer import GroupBuffer
from rayzero.services.loop.group_runner import GroupRunner
from rayzero.services.loop.observers import Observer
from rayzero.services.loop.run_control import RunControl
from rayzero.services.loop.weight_sync import WeightSync
from rayzero.services.observe.api.views import now
from rayzero.services.observe.progress import ProgressView
from rayzero.services.observe.recorder import Recorder
from rayzero.services.observe.run_terminal import run_console
from rayzero.services.observe.time_left import TimeLeft
from rayzero.services.run.end_notice import told_at_end
from rayzero.services.run.first_lines import first_lines_shown
from rayzero.services.run.fleets import runner_of, starts
from rayzero.services.run.garbage import collected_seldom
from rayzero.services.run.interrupts import answer_signals
from rayzero.services.run.placement import Placement
from rayzero.services.run.precision import settled
from rayzero.services.run.preflight import PreparedRun, prepare
from rayzero.services.run.ray_session import RaySession
from rayzero.services.run.report import print_report, write_summary
from rayzero.services.run.side_by_side import accompanied, all_or_first_error
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.extras import require_engines
from rayzero.services.schema.terminal import log_to
from rayzero.services.store.checkpoints import (
    checkpoints_in,
    find_damage,
    latest_checkpoint,
    restore_run,
    version_of,
)
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.retention import Retention
from rayzero.services.store.run_directory import RunDirectory, choose_run_directory

if TYPE_CHECKING:  # the API's libraries are loaded when a run begins, not with `rayzero check`
    from rayzero.services.observe.api.run_view import RunView

logger = logging.getLogger(__name__)

INTERRUPTED = 130

Sidecar = Callable[[RunControl], Coroutine[Any, Any, None]]
"""A task that runs beside a run, as the fault injection does."""


def train(
    recipe_path: Path,
    overrides: Sequence[str],
    runs_root: Path,
    explicit: Path | None,
    fresh: bool,
    sidecar: Sidecar | None = None,
    quiet: bool = False,
) -> int:
    """Run a recipe to its end; returns the exit code. `sidecar` runs beside it, and is ended with it; `quiet` shows
    warnings alone.

    Raises:
        RayzeroError: what stopped it; after the first checkpoint the same command goes on from there.
    """
    console = run_console(quiet)
    recipe = load_recipe(recipe_path, overrides)
    require_engines(recipe.cluster)
    directory, resume, notes = choose_run_directory(recipe, runs_root, explicit, fresh)
    recipe = settled(recipe, say=partial(console.print, style="dim"), kept=directory.recipe() if resume else None)
    prepared = prepare(recipe, say=lambda text: console.print(text, style="dim"))
    for note in notes:
        console.print(note, style="dim", soft_wrap=True, markup=False)
    return train_in(directory, recipe, prepared, resume, console, sidecar)


def train_in(
    directory: RunDirectory,
    recipe: Recipe,
    prepared: PreparedRun,
    resume: bool,
    console: Console,
    sidecar: Sidecar | None = None,
) -> int:
    """Run a recipe in a directory that is given; with `resume` it goes on from the last checkpoint there."""
    directory.prepare(recipe)
    log_to(directory.logs / "driver.log")
    run = _Run(recipe, prepared, directory, resume, console, sidecar=sidecar)
    try:
        with told_at_end(recipe, directory, run.warn) as end:
            end.exit_code = asyncio.run(run.run())
        return end.exit_code
    finally:
        directory.release()


@dataclass(slots=True)
class _Run:
    """One attempt at a run: what is up, and how it is taken down again."""

    recipe: Recipe
    prepared: PreparedRun
    directory: RunDirectory
    resume: bool
    console: Console
    sidecar: Sidecar | None = None
    watchers: Sequence[Observer] = ()
    controller: Controller | None = None
    started_s: float = 0.0
    checkpoint: Path | None = None

    async def run(self) -> int:
        """Bring everything up, train, take everything down."""
        self.started_s = time.monotonic()
        recipe, console = self.recipe, self.console
        console.print(f"[bold]{escape(recipe.name)}[/bold]  {escape(recipe.description)}")
        console.print(f"run directory: {self.directory.path}", style="dim", soft_wrap=True, markup=False)
        session = RaySession(recipe)
        task = asyncio.current_task()
        assert task is not None
        try:
            with ProgressView(console, TimeLeft.of(recipe)) as progress:
                progress.say("starting Ray")
                await asyncio.to_thread(session.start)
                answer_signals(lambda number: self._on_signal(number, task))
                async with self._watched(progress) as view, self._actors(progress) as controller:
                    self.controller = controller
                    view.attach(RunControl(controller), continued=self.checkpoint is not None)
                    evaluating = " and evaluating the model as it is" if controller.evaluates_first else ""
                    progress.say(f"syncing the first weights{evaluating}")
                    progress.look = partial(now, controller)
                    beside = (progress.watch(), *((self.sidecar(RunControl(controller)),) if self.sidecar else ()))
                    shown = first_lines_shown(recipe, self.directory.logs, self._show)
                    async with accompanied(*beside), self._until_time_is_up(controller), shown:
                        with collected_seldom():
                            await controller.run()
        except asyncio.CancelledError:
            after = "; the same command goes on from the last checkpoint" if self.directory.has_checkpoint() else ""
            console.print(f"interrupted; nothing is left running{after}", style="yellow")
            return INTERRUPTED
        except Exception:
            self._say_what_is_kept()
            raise
        finally:
            await asyncio.to_thread(session.stop)
        return self._close(controller)

    @contextlib.asynccontextmanager
    async def _until_time_is_up(self, controller: Controller) -> AsyncIterator[None]:
        hours = self.recipe.training.max_hours
        if hours is None:
            yield
            return

        def stop() -> None:
            self.warn(f"training.max_hours ({hours:g}) is over: stopping after this update")
            controller.stop()

        left_s = hours * 3600 - (time.monotonic() - self.started_s)
        timer = asyncio.get_running_loop().call_later(max(0.0, left_s), stop)
        try:
            yield
        finally:
            timer.cancel()

    @contextlib.asynccontextmanager
    async def _actors(self, progress: ProgressView) -> AsyncIterator[Controller]:
        """All actors, started side by side; all of them ended when the block is left, however it is left."""
        placement = Placement(self.recipe, self.prepared.model_path, self.directory.logs, self.prepared.device)
        runner = runner_of(self.recipe, placement, needs_weights=True)
        learner = LearnerSupervisor(placement.learner, self.directory.checkpoints, self.directory.rollouts)
        progress.say("starting the learner, the engines and the reward workers")
        try:
            await all_or_first_error(
                self._ready_learner(learner, progress),
                *starts(runner, self.recipe),
            )
            controller = self._controller(learner, runner, [progress, *self.watchers])
            self._restore(controller, progress)
            if self.recipe.cold_start is not None and self.checkpoint is None:
                await controller.checkpoint()  # what the cold start made: a restart begins again from here
            yield controller
        finally:
            closing = [fleet.close() for fleet in runner.fleets]
            await asyncio.gather(*closing, learner.shutdown(), return_exceptions=True)

    def _controller(self, learner: LearnerSupervisor, runner: GroupRunner, watchers: Sequence[Observer]) -> Controller:
        recipe = self.recipe
        recorder = Recorder(self.directory, Retention(self.directory, recipe.observe.retention))
        return Controller(
            recipe=recipe,
            prompts=self.prepared.train_prompts,
            buffer=GroupBuffer(
                groups_per_update=recipe.training.groups_per_update,
                max_staleness=recipe.training.max_staleness,
                drop_stale=recipe.training.on_stale == "drop",
                num_spare=recipe.training.num_spare_groups,
                record=recorder.on_ledger,
                clock=time.monotonic,
            ),
            runner=runner,
            rollouts=runner.rollouts,
            learner=learner,
            sync=WeightSync(
                learner,
                runner.rollouts,
                recipe.deadlines.sync_s,
                recipe.deadlines.actor_start_s,
                canary=Canary.of(recipe),
                ranks_per_worker=recipe.rollout.tensor_parallel_size,
            ),
            evaluator=Evaluator(
                runner,
                self.prepared.eval_prompts,
                recipe.evaluation_sampling,
                deterministic=recipe.training.is_synchronous,
            ),
            saver=Checkpointer(self.directory.checkpoints, learner, recipe.checkpoint.keep_last),
            observers=[recorder, *watchers],
            say=self.warn,
        )

    async def _ready_learner(self, learner: LearnerSupervisor, progress: ProgressView) -> None:
        """The learner as the loop needs it: from the checkpoint, or cold-started, while the engines come up."""
        self.checkpoint = latest_checkpoint(self.directory.checkpoints) if self.resume else None
        await learner.start(self.checkpoint)
        if self.checkpoint is None and self.recipe.cold_start is not None:
            from rayzero.services.run.cold_start import cold_start

            demonstrations, model_path = self.prepared.demonstrations, self.prepared.model_path
            await cold_start(learner, demonstrations, self.recipe, model_path, self.directory, progress)

    def _restore(self, controller: Controller, progress: ProgressView) -> None:
        """Continue from the checkpoint, if there is one; what was written after it is rolled back."""
        for path in checkpoints_in(self.directory.checkpoints):
            if self.checkpoint is None or version_of(path) > version_of(self.checkpoint):
                self.console.print(
                    f"checkpoint {path.name} is damaged and is not used: {find_damage(path)}", style="yellow"
                )
        if self.checkpoint is None:
            if self.resume:
                self.console.print("no whole checkpoint: starting from the beginning", style="yellow")
            Recorder(self.directory).roll_back(-1, 0)
            return
        restore_run(self.checkpoint, self.prepared.train_prompts.find, partial(go_on_from, controller))
        buffer = controller.buffer
        Recorder(self.directory).roll_back(buffer.version, buffer.next_group_id, buffer.entries)
        # An evaluation may have ended after the checkpoint at its version was begun.
        evaluations = read_lines(self.directory.file("evaluations.jsonl"))
        controller.accuracies |= {row["update"]: row["accuracy"] for row in evaluations}
        progress.resume(controller.accuracies, read_lines(self.directory.file("metrics.jsonl")), evaluations)
        self.console.print(f"continuing from {self.checkpoint.name}", style="cyan")

    @contextlib.asynccontextmanager
    async def _watched(self, progress: ProgressView) -> AsyncIterator[RunView]:
        """The run as others see it, from now on until the block is left."""
        from rayzero.services.run.observation import watch

        async with watch(self.recipe, self.directory, self.prepared.model_path, lambda: progress.phase) as (view, url):
            if url is not None:
                self.console.print(f"live page and control: {url}", style="dim", soft_wrap=True)
            try:
                self.watchers = view.observers
                yield view
            finally:
                view.detach()

    def _show(self, text: str) -> None:
        self.console.print(text, style="dim", soft_wrap=True, markup=False)

    def warn(self, text: str) -> None:
        """To the log and the terminal."""
        logger.warning(text)
        self.console.print(text, style="yellow", soft_wrap=True, markup=False)

    def _on_signal(self, number: signal.Signals, task: asyncio.Task[Any]) -> None:
        """The first: finish the update in hand, save, end. With nothing to save, or at a second Ctrl-C: end now."""
        controller = self.controller
        if controller is None or controller.buffer.version == 0 or (controller.stopping and number is signal.SIGINT):
            task.cancel()
        elif not controller.stopping:
            last = max(controller.saved_version, 0)
            self.console.print(
                f"{number.name}: stopping after this update, which is then saved; until then the last checkpoint is "
                f"that of update {last} (Ctrl-C again to stop at once)"
                if last
                else f"{number.name}: stopping after this update, which is then saved (Ctrl-C again to stop at once)",
                style="yellow",
                soft_wrap=True,
            )
            controller.stop()

    def _say_what_is_kept(self) -> None:
        """After a failure: where the same command goes on."""
        saved = checkpoints_in(self.directory.checkpoints)
        if saved:
            self.console.print(f"kept: {saved[-1].name}; the same command goes on from there", style="yellow")
        elif self.controller is not None and self.controller.buffer.version > 0:
            self.console.print("no checkpoint was written: the same command begins anew", style="yellow")

    def _close(self, controller: Controller) -> int:
        """Summary, report, exit code."""
        version = controller.buffer.version
        if not controller.is_over or (self.recipe.evaluates and version not in controller.accuracies):
            self.console.print(f"stopped at update {version}; the same command goes on from here", style="yellow")
            return INTERRUPTED
        summary = write_summary(self.directory, controller, time.monotonic() - self.started_s)
        print_report(self.console, self.directory, summary)
        return 0
