"""The learner on disk: the model as others load it, and beside it what only a resume needs.

state/learner.pt     versions, random state, the optimizer's settings; where each tensor lies
state/part_0000.pt   masters, moments and reference, in the order in which they were put together
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rayzero.learner.model.ranks import Ranks
from rayzero.services.schema.errors import RunDirectoryError

if TYPE_CHECKING:
    from rayzero.learner.update.learner import Learner

STATE_FOLDER = Path("state")
STATE_FILE = STATE_FOLDER / "learner.pt"
PART_BYTES = 2 * 2**30
"""Tensors are written as soon as they are as large together: the host need not hold a model of them."""
UNWRITABLE = ("I/O error", "No space left", "PytorchStreamWriter failed", "unexpected pos")
"""What safetensors and torch say where a file cannot be written: neither raises OSError."""

NO_STATE: tuple[type[Exception], ...] = (
    pickle.UnpicklingError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    EOFError,
)
"""What is raised where a file holds something else than a learner's state; torch's own reader refuses code so."""

Place = dict[str, int]
"""Where a tensor lies: {"part": number of the file, "index": place in its list}."""


def save_learner(learner: Learner, directory: Path) -> None:
    """Write the model (Hugging Face format) and `state/`: fp32 masters, moments, versions, random state.

    Where ranks shard the model all must call it; rank 0 writes, in the format of a single rank. Making all appear at
    once is services/loop/checkpointer.py's: it hands over a fresh directory and renames it.

    Raises:
        RunDirectoryError: the disk is full or the directory not writable; another learner would fare no better.
    """
    parts = StateParts(directory / STATE_FOLDER, learner.policy.ranks)
    try:
        learner.policy.save(directory)
        state = learner.state_dict(parts.keep)
        parts.flush()
        if learner.policy.ranks.rank == 0:
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

    def read() -> Any:
        with _explained(directory, RuntimeError):
            state.update(read_state(directory))
            return outline(state)

    outlined = learner.policy.ranks.from_first(read)
    with _explained(directory):
        learner.load_state_dict(state or outlined)


@contextlib.contextmanager
def _explained(directory: Path, *also: type[Exception]) -> Iterator[None]:
    """What a file that was tampered with leads to is no failure of the learner: another one would fail as well."""
    try:
        yield
    except (*NO_STATE, *also) as error:
        problem = str(error).strip().splitlines() or [""]
        raise RunDirectoryError(
            f"the learner's state in checkpoint {directory} is not what a learner has written "
            f"({type(error).__name__}: {problem[0]:.200}): remove the checkpoint to go on from the one before it"
        ) from None


class StateParts:
    """Tensors on their way to disk: put together one by one, and written by rank 0 a few at a time."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self._folder, self._ranks = folder, ranks
        self._tensors: list[torch.Tensor] = []
        self._number = self._num_bytes = 0

    def keep(self, tensor: torch.Tensor) -> Place | None:
        """Where it will lie; None on ranks other than 0. All ranks must ask."""
        whole = self._ranks.collect(tensor)
        if whole is None:
            return None
        place = {"part": self._number, "index": len(self._tensors)}
        self._tensors.append(whole)
        self._num_bytes += whole.nbytes
        if self._num_bytes >= PART_BYTES:
            self.flush()
        return place

    def flush(self) -> None:
        """Write what is left."""
        if self._tensors:
            self._folder.mkdir(exist_ok=True)
            torch.save(self._tensors, part_file(self._folder, self._number))
            self._tensors, self._number, self._num_bytes = [], self._number + 1, 0


def part_file(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"part_{number:04d}.pt"


def read_state(directory: Path) -> dict[str, Any]:
    """What the learner's `state_dict` gave. Tensors are mapped, not read: the host holds what is looked at."""
    parts: dict[int, list[torch.Tensor]] = {}

    def found(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if value.keys() != {"part", "index"}:
            return {name: found(each) for name, each in value.items()}
        number = value["part"]
        if number not in parts:
            parts[number] = _load(part_file(directory / STATE_FOLDER, number), mmap=True)
        return parts[number][value["index"]]

    state: dict[str, Any] = found(_load(directory / STATE_FILE, mmap=False))
    return state


def outline(value: Any) -> Any:
    """The state without its weights and moments: of those the shape alone, on the meta device."""
    if isinstance(value, dict):
        return {name: outline(each) for name, each in value.items()}
    # Counts of steps are scalars, and random state is bytes.
    large = isinstance(value, torch.Tensor) and value.ndim > 0 and value.is_floating_point()
    return value.to("meta") if large else value


def _load(file: Path, *, mmap: bool) -> Any:
    with warnings.catch_warnings():
        # Of a file that another program pickled torch says to file an issue with it; what is said here is the error.
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
