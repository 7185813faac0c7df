"""What was built: compiled programs, each kept until the last verdict that needs it, and what is kept longer."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rayzero.rewards.sandbox.boxes import BoxError


class Artifacts:
    """Folders by key, readable by boxes. A key that is held is there until as many `release` as `hold` it."""

    def __init__(self, scratch: str, cache: str | None) -> None:
        """`cache`: where those that are kept for every supervisor of this user lie; None: nowhere."""
        self._own = os.path.join(scratch, "artifacts")
        self._cache = cache
        self._holders: Counter[str] = Counter()

    def find(self, key: str) -> str:
        """The folder; BoxError where there is none."""
        for parent in (self._cache, self._own):
            if parent and os.path.isdir(os.path.join(parent, key)):
                return os.path.join(parent, key)
        raise BoxError(f"no artifact {key}")

    def hold(self, key: str) -> None:
        """One more needs it."""
        self._holders[key] += 1

    def release(self, key: str) -> None:
        """One fewer does. Without a holder a compiled program is deleted: millions of them would fill any disk."""
        self._holders[key] -= 1
        if self._holders[key] <= 0:
            del self._holders[key]
            shutil.rmtree(os.path.join(self._own, key), ignore_errors=True)

    def begin(self, *, keep: bool) -> Path:
        """An empty folder to build in, removed by the caller; `keep` it in the cache once it is published."""
        parent = (self._cache if keep else None) or self._own
        os.makedirs(parent, mode=0o755, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=parent, prefix=".new-"))

    def publish(self, folder: Path, key: str, output: str, beside: Mapping[str, bytes]) -> None:
        """Put what belongs beside the output into the folder, and the folder where artifacts are found."""
        for name, content in beside.items():
            (folder / name).write_bytes(content)
        target = folder / output
        for path in (*target.parents, target):
            if path.is_relative_to(folder):
                path.chmod(0o755)
        with contextlib.suppress(OSError):  # another supervisor was first
            os.rename(folder, folder.parent / key)
