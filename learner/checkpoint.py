"""The learner on disk: the model as others load it, and beside it what only a resume needs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from services.schema.errors import RunDirectoryError

if TYPE_CHECKING:
    from learner.update import Learner

STATE_FILE = Path("state") / "learner.pt"
UNWRITABLE = ("I/O error", "No space left", "PytorchStreamWriter failed", "unexpected pos")
"""What safetensors and torch say where a file cannot be written: neither raises OSError."""


def save_learner(learner: Learner, directory: Path) -> None:
    """Write the model (Hugging Face format) and `state/learner.pt`: fp32 masters, moments, versions, random state.

    Where ranks shard the model all must call it; rank 0 writes, in the format of a single rank. Making all appear at
    once is services/checkpointing.py's: it hands over a fresh directory and renames it.

    Raises:
        RunDirectoryError: the disk is full or the directory not writable; another learner would fare no better.
    """
    try:
        learner.policy.save(directory)
        state = learner.state_dict()
        if learner.policy.ranks.rank == 0:
            (directory / STATE_FILE).parent.mkdir(exist_ok=True)
            torch.save(state, directory / STATE_FILE)
    except Exception as error:
        if isinstance(error, OSError) or any(words in str(error) for words in UNWRITABLE):
            free_mib = shutil.disk_usage(directory).free / 2**20
            raise RunDirectoryError(f"{str(error).splitlines()[0]} (its disk has {free_mib:.0f} MiB left)") from None
        raise


def load_learner(learner: Learner, directory: Path) -> None:
    """Restore what `save_learner` wrote; the next update is bit-equal to the one that would have followed it."""
    learner.load_state_dict(torch.load(directory / STATE_FILE, map_location="cpu", weights_only=True))
