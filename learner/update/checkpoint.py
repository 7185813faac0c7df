"""The learner on disk: the model as others load it, and beside it what only a resume needs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rayzero.services.schema.errors import RunDirectoryError

if TYPE_CHECKING:
    from rayzero.learner.update.learner import Learner

STATE_FILE = Path("state") / "learner.pt"
UNWRITABLE = ("I/O error", "No space left", "PytorchStreamWriter failed", "unexpected pos")
"""What safetensors and torch say where a file cannot be written: neither raises OSError."""


def save_learner(learner: Learner, directory: Path) -> None:
    """Write the model (Hugging Face format) and `state/learner.pt`: fp32 masters, moments, versions, random state.

    Where ranks shard the model all must call it; rank 0 writes, in the format of a single rank. Making all appear at
    once is services/loop/checkpointer.py's: it hands over a fresh directory and renames it.

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
    """Restore what `save_learner` wrote; the next update is bit-equal to the one that would have followed it.

    Where ranks shard the model all must call it; rank 0 alone reads, and sends each of the others its shards.
    """
    state: dict[str, Any] = {}

    def read() -> dict[str, Any]:
        # Mapped, not read: on the host there is never more of it than the tensor that is being sent.
        state.update(torch.load(directory / STATE_FILE, map_location="cpu", weights_only=True, mmap=True))
        return outline(state)

    outlined = learner.policy.ranks.from_first(read)
    learner.load_state_dict(state or outlined)


def outline(state: dict[str, Any]) -> dict[str, Any]:
    """The state without its weights and moments: of those the shape alone, on the meta device."""
    return {
        name: outline(value) if isinstance(value, dict) else value.to("meta") if _is_large(value) else value
        for name, value in state.items()
    }


def _is_large(value: Any) -> bool:
    """A weight or a moment; counts of steps are scalars, and random state is bytes."""
    return isinstance(value, torch.Tensor) and value.ndim > 0 and value.is_floating_point()
