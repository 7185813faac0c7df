"""`make setup` takes a GPU that is there, and `make test-gpu` does not pretend on a machine that has none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("listing", "chosen"),
    [("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)", "gpu"), ("No devices were found", "cpu"), (None, "cpu")],
)
def test_setup_notices_a_gpu(tmp_path: Path, listing: str | None, chosen: str) -> None:
    for program in ("timeout", "grep"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    if listing is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{listing}'\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    script = (ROOT / "scripts/setup").read_text(encoding="utf-8")
    function = script[script.index("find_accelerator() {") : script.index("find_python() {")]
    bash, environment = str(shutil.which("bash")), {"PATH": f"{tmp_path}", "LC_ALL": "C"}
    shell = f"#!{bash}\n{function}\nfind_accelerator\n".replace("#!/bin/sh", f"#!{shutil.which('sh')}")
    done = subprocess.run([bash, "-c", shell], capture_output=True, text=True, env=environment, timeout=30, check=True)
    assert done.stdout.strip() == chosen


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has an NVIDIA driver")
def test_gpu_tests_fail_where_there_is_no_gpu(tmp_path: Path) -> None:
    settings = tmp_path / "pytest.ini"  # none of the project's plugins: they take seconds to load
    settings.write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-c", str(settings), "--import-mode=importlib", str(ROOT / "tests/gpu")]
    plain = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=plain)
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "NOTHING WAS RUN: no NVIDIA driver here" in done.stdout
