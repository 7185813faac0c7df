from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.rewards.sandbox.artifacts import Artifacts
from rayzero.rewards.sandbox.boxes import BoxError


def built(artifacts: Artifacts, key: str, *, keep: bool = False) -> str:
    folder = artifacts.begin(keep=keep)
    (folder / "main").write_bytes(b"program")
    artifacts.publish(folder, key, "main", {"beside.h": b"text"})
    artifacts.hold(key)
    return artifacts.find(key)


def test_one_is_there_until_the_last_who_needs_it_lets_go(tmp_path: Path) -> None:
    artifacts = Artifacts(str(tmp_path), None)
    folder = Path(built(artifacts, "a"))
    artifacts.hold("a")
    assert {path.name for path in folder.iterdir()} == {"main", "beside.h"}
    artifacts.release("a")
    assert artifacts.find("a") == str(folder)
    artifacts.release("a")
    assert not folder.exists()
    with pytest.raises(BoxError, match="no artifact a"):
        artifacts.find("a")


def test_what_is_kept_stays_in_the_cache(tmp_path: Path) -> None:
    artifacts = Artifacts(str(tmp_path / "scratch"), str(tmp_path / "cache"))
    folder = built(artifacts, "header", keep=True)
    artifacts.release("header")
    assert artifacts.find("header") == folder == str(tmp_path / "cache" / "header")
