"""Saves and prunes the checkpoints of a live run; services/store/checkpoints.py reads and verifies them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayzero.services.loop.controller import Controller
from rayzero.services.loop.evaluation import best_version
from rayzero.services.schema.errors import DeadlineError, RunDirectoryError, WorkerError
from rayzero.services.schema.interfaces import LearnerHandle
from rayzero.services.store.checkpoints import checkpoints_in, seal, sync_directory, version_of
from rayzero.services.store.run_state import PackedState


def state_of(controller: Controller) -> dict[str, Any]:
    """What resumes with the learner's own checkpoint."""
    return {
        "buffer": controller.buffer.state_dict(),
        "prompts": controller.prompts.state_dict(),
        "accuracies": dict(controller.accuracies),
        "num_tokens": controller.num_tokens,
        "num_samples": controller.num_samples,
    }


def go_on_from(controller: Controller, state: Mapping[str, Any]) -> None:
    """Continue from a checkpoint; the learner loads its own part."""
    controller.buffer.load_state_dict(state["buffer"])
    controller.prompts.load_state_dict(state["prompts"])
    controller.accuracies = dict(state["accuracies"])
    controller.num_tokens, controller.num_samples = state["num_tokens"], state["num_samples"]
    controller.saved_version = controller.buffer.version


@dataclass(slots=True)
class Checkpointer:
    """The checkpoints of one run."""

    folder: Path
    learner: LearnerHandle
    keep_last: int

    async def save(self, controller: Controller) -> None:
        """Write `update_<version>`: into a temporary directory, synced to disk, then renamed.

        Raises:
            RunDirectoryError: the disk is full, the folder not writable, or the learner failed twice for one reason;
                earlier checkpoints are untouched.
        """
        version = controller.buffer.version
        final = self.folder / f"update_{version:06d}"
        temporary = self.folder / f".update_{version:06d}.tmp"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            (temporary / "state").mkdir(parents=True)
            state = PackedState.of(state_of(controller))
            await self.learner.save_checkpoint(str(temporary))
            await asyncio.to_thread(state.write, temporary / "state")
            await asyncio.to_thread(seal, temporary, {"update": version})
            if final.exists():
                shutil.rmtree(final)
            temporary.replace(final)
            sync_directory(self.folder)
        except (OSError, RunDirectoryError, WorkerError, DeadlineError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            why = getattr(error, "strerror", None) or error
            before = "the one before it is intact" if any(self.folder.glob("update_*")) else "there is none before it"
            raise RunDirectoryError(f"checkpoint {final} cannot be written: {why}; {before}") from None
        self._prune(version, controller.accuracies, controller.measuring)

    def _prune(self, version: int, accuracies: Mapping[int, float], measuring: int | None) -> None:
        """Keep the last ones, and the best: of those that are there, by the run's accuracies. One whose evaluation
        goes on beside the training may prove the best."""
        paths = checkpoints_in(self.folder)
        # A damaged checkpoint that a resume passed over: counted as one of the last, it would push out a whole one.
        left_behind = [path for path in paths if version_of(path) > version]
        for path in left_behind:
            shutil.rmtree(path, ignore_errors=True)
        paths = [path for path in paths if path not in left_behind]
        there = {version_of(path): path for path in paths}
        best = best_version({found: accuracies[found] for found in there.keys() & accuracies.keys()})
        keep = {*paths[-self.keep_last :], *(there[found] for found in (best, measuring) if found in there)}
        left_by_kills = self.folder.glob(".update_*.tmp")
        for path in (*left_by_kills, *(path for path in paths if path not in keep)):
            shutil.rmtree(path, ignore_errors=True)
