"""What nvidia-smi says is read in one way, and its silence is not taken for a machine without GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.planning import nvidia_smi
from rayzero.services.planning.machine import examine
from rayzero.services.run.preflight import count_gpus
from rayzero.services.schema.errors import DeadlineError

TWO = """\
case "$1" in
-L) printf 'GPU 0: NVIDIA H200 (UUID: GPU-1)\\nGPU 1: NVIDIA H200 (UUID: GPU-2)\\n' ;;
*) printf '143771\\n81559\\n' ;;
esac
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program of that name, before all others."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_names_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, TWO)
    assert nvidia_smi.gpu_names() == ("GPU 0: NVIDIA H200", "GPU 1: NVIDIA H200")
    assert nvidia_smi.gpu_memory_bytes() == (143771 * 2**20, 81559 * 2**20)
    assert count_gpus() == 2
    assert examine(None, tmp_path, None).gpus == nvidia_smi.gpu_names()


def test_a_driver_without_gpus_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "echo 'No devices were found'; exit 6\n")
    assert nvidia_smi.gpu_names() == ()
    assert nvidia_smi.gpu_memory_bytes() == ()


def test_a_driver_that_hangs_is_an_error_and_not_a_machine_without_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "exec sleep 60\n")
    monkeypatch.setattr(nvidia_smi, "ANSWER_S", 0.2)
    with pytest.raises(DeadlineError, match=r"nvidia-smi has not answered for 0\.2 s"):
        count_gpus()
    assert examine(None, tmp_path, None).gpus == ()  # the doctor goes on to the rest
