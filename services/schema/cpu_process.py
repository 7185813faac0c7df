"""The environment of a process that computes on CPUs: the allocator of its memory, and the library of its threads.

A learner's large tensors come and go with every update: glibc returns their memory to the system and takes it anew,
page by page, while the update waits.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
from pathlib import Path


def cpu_environment() -> dict[str, str]:
    """Set it where the process is made: a library that is preloaded later has no effect."""
    return {
        "LD_PRELOAD": ":".join(_preloaded_libraries()),
        # torch asks for large pages where a tensor is larger than one: fewer faults while memory is new.
        "THP_MEM_ALLOC_ENABLE": "1",
    }


def _preloaded_libraries() -> list[str]:
    """torch's own libgomp (one OpenMP runtime, not two), and tcmalloc: vLLM's, or the system's where it ships none."""
    torch, vllm = _package("torch"), _package("vllm")
    found: list[str] = []
    if vllm is not None:
        found += [str(path) for path in sorted((vllm / "libs").glob("libtcmalloc*.so*"))[:1]]
    if not found and (installed := ctypes.util.find_library("tcmalloc_minimal")):
        found.append(installed)
    if torch is not None:
        places = (torch.parent / "torch.libs", torch / "lib")
        found += [str(path) for path in sorted(path for place in places for path in place.glob("libgomp*.so*"))[:1]]
    return found


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
