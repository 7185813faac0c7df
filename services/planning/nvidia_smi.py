"""What nvidia-smi says about this machine's GPUs: the one place that asks it."""

from __future__ import annotations

import shutil
import subprocess

from rayzero.services.schema.errors import DeadlineError

ANSWER_S = 30.0
"""A driver that is in trouble can keep it waiting."""


def gpu_names() -> tuple[str, ...]:
    """One line a GPU, e.g. `GPU 0: NVIDIA H200`; none without a driver.

    Raises:
        DeadlineError: it does not answer.
    """
    lines = _ask("-L").splitlines()
    return tuple(line.split(" (UUID")[0] for line in lines if line.startswith("GPU "))


def gpu_memory_bytes() -> tuple[int, ...]:
    """The memory of each GPU; none without a driver.

    Raises:
        DeadlineError: it does not answer.
    """
    answer = _ask("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    return tuple(int(line) * 2**20 for line in answer.split() if line.isdigit())


def _ask(*arguments: str) -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False).stdout
    except subprocess.TimeoutExpired:
        # Counted as no GPU, it would send a GPU's run to the CPUs without a word.
        raise DeadlineError(
            f"nvidia-smi has not answered for {ANSWER_S:g} s: the GPU driver hangs; restart it"
        ) from None
