"""What a test needs of the machine. `@needs("bwrap", "g++")` skips where it is missing, and fails there in CI."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess

import pytest

from rayzero.rewards.sandbox import host

MAY_BE_MISSING_IN_CI = {"podman", "gpu", "kubectl"}
"""Containers within containers and GPUs are not everywhere, and Debian's kubectl is older than our kustomizations: even
CI may skip what needs them."""


def needs(*names: str) -> pytest.MarkDecorator:
    """Mark a test, class or module (`pytestmark = needs(…)`) with the programs and modules it needs.

    A name is a program on the path, else a Python module, or `gpu`.
    """
    return pytest.mark.needs(*names)


def in_ci() -> bool:
    """Whether a missing program is a failure: `.ci/run` sets RAYZERO_CI=1."""
    return os.environ.get("RAYZERO_CI") == "1"


def is_there(name: str) -> bool:
    """Whether this machine has a program, a Python module, or a GPU."""
    if name == "gpu":
        if shutil.which("nvidia-smi") is None:
            return False
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
        return "GPU " in listing.stdout
    if name == "bwrap":  # PyPI's counts as well
        return host.find_bwrap() is not None
    return shutil.which(name) is not None or _is_module(name)


def check_needs(*names: str) -> None:
    """Skip the running test, naming what is missing; in CI fail it instead."""
    missing = [name for name in names if not is_there(name)]
    if not missing:
        return
    reason = f"not on this machine: {', '.join(missing)} (make setup-system installs programs, make setup modules)"
    if in_ci() and not MAY_BE_MISSING_IN_CI.intersection(missing):
        pytest.fail(f"CI must have it: {reason}", pytrace=False)
    pytest.skip(reason)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def has_ipv6() -> bool:
    """Whether this machine's loopback has an IPv6 address; many containers have none."""
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


LOOPBACKS = ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback here"))]
"""Addresses of this machine, one a family: for `parametrize`."""
