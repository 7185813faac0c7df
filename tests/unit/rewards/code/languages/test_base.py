from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.rewards.code.languages.base import ToolchainError, shown_folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "home"
    for folder in ("lib/modules", ".local/lib/modules", "jdk/lib/modules", "empty"):
        (made / folder).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(made))
    return made


def test_a_toolchain_of_the_system_needs_nothing_shown() -> None:
    assert shown_folder("/usr/lib/jvm/java-17", ("lib/modules",), "the JDK") == ()
    assert shown_folder("/usr", ("lib",), "rust") == ()


def test_a_folder_of_its_own_is_shown(home: Path) -> None:
    assert shown_folder(str(home / "jdk"), ("lib/modules",), "the JDK") == (str(home / "jdk"),)


@pytest.mark.parametrize("folder", [".", "..", ".local", "empty"])
def test_a_folder_that_holds_more_is_refused(home: Path, folder: str) -> None:
    with pytest.raises(ToolchainError, match="no folder of a toolchain alone"):
        shown_folder(str(home / folder), ("lib/modules",), "the JDK")


def test_nor_is_one_shown_that_holds_the_present_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home / "jdk" / "lib")
    with pytest.raises(ToolchainError, match="the JDK"):
        shown_folder(str(home / "jdk"), ("lib/modules",), "the JDK")
