"""What `make test-gpu` needs. Without it nothing is collected: pytest ends with code 5, and says what is missing.

`RAYZERO_GPU_TESTS_ON=cpu` runs the engine tests on vLLM for CPUs, those marked `cuda_only` skipped: a rehearsal, which
proves the tests' own code where there is no GPU, and nothing of the GPU path.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, distribution

import pytest

DEVICE = os.environ.get("RAYZERO_GPU_TESTS_ON", "cuda")


def missing() -> str:
    """What this machine lacks; empty where nothing does."""
    if shutil.which("nvidia-smi") is None:
        return "no NVIDIA driver here (nvidia-smi is not installed)"
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False).stdout
    if "GPU " not in listing:
        return "nvidia-smi lists no GPU"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed: make setup"
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU: it is a CPU build, or the driver is too old (make setup)"
    try:
        distribution("vllm")
    except PackageNotFoundError:
        return "vLLM for CUDA is not installed: make setup RAYZERO_ACCELERATOR=gpu"
    return ""


MISSING = missing() if DEVICE == "cuda" else ""
collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cuda_only: says something of CUDA alone; a rehearsal on a CPU skips it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if DEVICE == "cpu":
        for item in items:
            if item.get_closest_marker("cuda_only"):
                item.add_marker(pytest.mark.skip(reason="a rehearsal on a CPU: this says something of CUDA alone"))


def pytest_report_header() -> str:
    if MISSING:
        return f"gpu tests: {MISSING}"
    if DEVICE == "cpu":
        return "gpu tests, REHEARSED ON A CPU"
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"gpu tests on {', '.join(names)}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MISSING:
        terminalreporter.write_line(f"NOTHING WAS RUN: {MISSING}", red=True, bold=True)
