"""The learner on disk: the model as others load it, and beside it what only a resume needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from learner.update import Learner

STATE_FILE = Path("state") / "learner.pt"


def save_learner(learner: Learner, directory: Path) -> None:
    """Write the model (Hugging Face format) and `state/learner.pt`: fp32 masters, moments, versions, random state.

    Where ranks shard the model all must call it; rank 0 writes, in the format of a single rank. Making all appear at
    once is services/checkpointing.py's: it hands over a fresh directory and renames it.
    """
    learner.policy.save(directory)
    state = learner.state_dict()
    if learner.policy.ranks.rank == 0:
        (directory / STATE_FILE).parent.mkdir(exist_ok=True)
        torch.save(state, directory / STATE_FILE)


def load_learner(learner: Learner, directory: Path) -> None:
    """Restore what `save_learner` wrote; the next update is bit-equal to the one that would have followed it."""
    learner.load_state_dict(torch.load(directory / STATE_FILE, map_location="cpu", weights_only=True))
