"""What `make test-gpu` needs. Without it nothing is collected: pytest ends with code 5, and says what is missing."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, distribution

import pytest


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


MISSING = missing()
collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_report_header() -> str:
    if MISSING:
        return f"gpu tests: {MISSING}"
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"gpu tests on {', '.join(names)}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MISSING:
        terminalreporter.write_line(f"NOTHING WAS RUN: {MISSING}", red=True, bold=True)
