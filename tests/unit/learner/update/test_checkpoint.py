"""A learner's state that was tampered with: a sentence, and no code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from rayzero.learner.model.ranks import ONE_RANK
from rayzero.learner.update.checkpoint import STATE_FILE, load_learner, part_file
from rayzero.services.schema.errors import RunDirectoryError


class Bomb:
    """Executes code when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


class Learner:
    """As far as a resume goes until its state is read."""

    class policy:
        ranks = ONE_RANK

    def load_state_dict(self, state: dict[str, Any]) -> None:
        state["optimizer"]["adam"]


@pytest.mark.parametrize("content", ["pickle", "torch", "part", "empty", "noise", "other"])
def test_what_is_no_state_is_refused_and_runs_nothing(tmp_path: Path, content: str) -> None:
    exploded, file = tmp_path / "exploded", tmp_path / STATE_FILE
    file.parent.mkdir()
    if content == "pickle":
        file.write_bytes(pickle.dumps(Bomb(exploded)))
    elif content == "torch":
        torch.save({"optimizer": Bomb(exploded)}, file)
    elif content == "part":
        torch.save({"optimizer": {"part": 0, "index": 0}}, file)
        torch.save([Bomb(exploded)], part_file(file.parent, 0))
    elif content == "other":
        torch.save({"optimizer": torch.zeros(3)}, file)
    else:
        file.write_bytes(b"" if content == "empty" else bytes(range(256)) * 9)
    with pytest.raises(RunDirectoryError, match=r"^the learner's state in checkpoint \S+ is not what") as refused:
        load_learner(Learner(), tmp_path)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value) and not exploded.exists()
