"""Which of rayzero's extras brings a package that is missing, and the one sentence that says so.

`pip install rayzero` brings what grading, checking a recipe and looking at runs need: seconds, not gigabytes. What
trains is in the extras `cpu` and `gpu`.
"""

from __future__ import annotations

import importlib.util

from rayzero.services.schema.config.cluster import ClusterSettings
from rayzero.services.schema.errors import NotInstalled
from rayzero.services.schema.import_root import IMPORT_ROOT

ENGINES = "cpu"
EXTRAS = {
    ENGINES: (
        "accelerate", "fastapi", "gguf", "matplotlib", "peft", "prometheus_client", "psutil", "ray", "safetensors",
        "tokenizers", "torch", "transformers", "uvicorn", "vllm",
    ),
    "data": ("datasets", "pyarrow"),
    "reasoning-gym": ("reasoning_gym",),
    "bench": ("math_verify",),
}  # fmt: skip
"""By extra, the modules that it brings. `gpu` brings the same as `cpu`."""


IN_CHECKOUT = (IMPORT_ROOT / "scripts" / "setup").is_file()


def require(*modules: str) -> None:
    """Refuse to begin what would fail later, in another process.

    Raises:
        NotInstalled: the first of `modules` that is missing.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise NotInstalled(advice(module) or f"the package {module} is not installed")


def require_engines(cluster: ClusterSettings) -> None:
    """What the actors of a local run import; on a cluster it is the nodes that must have it.

    Raises:
        NotInstalled: the first that is missing.
    """
    if cluster.address is None:
        require("torch", "transformers", "vllm")


def explain(error: ModuleNotFoundError) -> str | None:
    """What to install where an import failed; None for a module that no extra brings."""
    return advice((error.name or "").split(".")[0])


def advice(module: str, in_checkout: bool = IN_CHECKOUT) -> str | None:
    """One sentence: what is missing and what brings it; None for a module that no extra brings."""
    for extra, modules in EXTRAS.items():
        if module not in modules:
            continue
        if in_checkout:
            fix = "make setup-dev" if module == "datasets" else "make setup"
        else:
            fix = f"pip install 'rayzero[{extra}]'"
            fix += ", or 'rayzero[gpu]' for NVIDIA GPUs" if extra == ENGINES else ""
        return f"this needs the package {module}, which is not installed: {fix}"
    return None
