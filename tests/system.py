"""What a test needs of the machine. `@needs("bwrap", "g++")` skips where it is missing, and fails there in CI."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import TypeVar

import pytest

from rayzero.rewards.sandbox import host

T = TypeVar("T")

_MISSING = re.compile(r"not on this machine: ([^()]*) \([^()]*\)(?:; (\d+) tests more)?")
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


def missing_of(*names: str) -> tuple[str, ...]:
    """Which of them this machine lacks."""
    return tuple(name for name in names if not is_there(name))


def check_needs(*names: str, others: int = 0) -> None:
    """Skip the running test, naming what is missing and how many `others` want it, too; in CI fail it instead."""
    missing = missing_of(*names)
    if not missing:
        return
    more = f"; {others} tests more want it" if others else ""
    reason = (
        f"not on this machine: {', '.join(missing)} (make setup-system installs programs, make setup modules){more}"
    )
    if in_ci() and not MAY_BE_MISSING_IN_CI.intersection(missing):
        pytest.fail(f"CI must have it: {reason}", pytrace=False)
    pytest.skip(reason)


def smallest_sets(lacking: Mapping[T, AbstractSet[str]]) -> dict[T, T]:
    """The test that says for each what is missing: the first that lacks the same, or a part of it."""
    first: dict[frozenset[str], T] = {}
    for test, names in lacking.items():
        if names:
            first.setdefault(frozenset(names), test)
    least = [names for names in first if not any(other < names for other in first)]
    return {test: next(first[some] for some in least if some <= names) for test, names in lacking.items() if names}


def skipped_line(reasons: Sequence[str], alike: Mapping[str, int] = MappingProxyType({})) -> str:
    """What a session skipped and how to run it, in a line; empty where it skipped nothing.

    `reasons`: as pytest reports them, with the place in front; `alike`: how many more a plain one stands for.
    """
    missing: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for reason in reasons:
        text = re.sub(r"^\(.*?, \d+, ['\"](?:Skipped: )?|['\"]\)$", "", reason)
        named = _MISSING.search(text)
        if named:
            missing[named[1]] += 1 + int(named[2] or 0)
        else:
            others[text] += 1 + (0 if text in others else alike.get(text, 0))
    if not reasons:
        return ""
    parts = [f"{count} want {names}" for names, count in missing.most_common()]
    parts += [f"{count}: {text}" for text, count in others.most_common()]
    how = "; `make setup-system` as root and `make setup-dev` install what is missing" if missing else ""
    number = missing.total() + others.total()
    return f"{number} tests skipped ({'; '.join(parts)}){how}; `make test-long` runs what takes minutes a test"


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


AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can try it")
"""Namespaces, other users and their files."""
