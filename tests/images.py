"""The images as the Dockerfile builds them, where no registry can be reached. Their base is made here: Debian of the
release that the Dockerfile names, with Debian's own Python, from the mirror of this machine's apt. pip looks where it
looks here. Dockerfile and compose file are as committed."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.containers import Compose

BASE = "localhost/rayzero-base:local"
BASE_PACKAGES = "python3,python3-pip,python-is-python3,ca-certificates"
NEEDED_GIB = 25
"""Of disk, while both images are built for CPUs."""
FIND_S, BASE_S, BUILD_S = 60.0, 900.0, 2400.0
OF_PIP = (
    "index-url", "extra-index-url", "find-links", "no-index", "cert", "client-cert", "trusted-host", "proxy",
    "constraint", "default-timeout",
)  # fmt: skip
INDEXES = ("index-url", "extra-index-url")
OF_APT = re.compile(r"^Acquire::(https?::|Check-|Retries)")


@dataclass(frozen=True)
class Built:
    """What it took to build one image."""

    seconds: float
    size_bytes: int


@contextmanager
def built_images(folder: Path) -> Iterator[tuple[Compose, dict[str, Built]]]:
    """Both images by the compose file for CPUs; afterwards nothing is left."""
    found = Compose(folder)
    try:
        if shutil.disk_usage(folder).free < NEEDED_GIB * 2**30:
            pytest.skip(f"the images need {NEEDED_GIB} GiB of disk here")
        found.probe()
        found.override({})
        make_base(found)
        options = ("--network", "host", *pip_volumes(folder))
        yield found, {target: _build(found, service, target, options) for service, target in TARGETS.items()}
    finally:
        found.close()


TARGETS = {"reward-worker": "reward", "ray-head": "train"}
"""Services of the compose file that say how to build: and the image of each."""


def _build(compose: Compose, service: str, target: str, options: tuple[str, ...]) -> Built:
    compose.environment["BASE_IMAGE"] = BASE
    began = time.monotonic()
    compose.compose("build", service, build=options, deadline_s=BUILD_S)
    size = compose.must("podman", "image", "inspect", "--format", "{{.Size}}", f"rayzero/{target}:0.2.0")
    return Built(time.monotonic() - began, int(size))


def make_base(compose: Compose) -> None:
    """The base image, under the name BASE. Skips where Debian's packages cannot be reached."""
    root, archive = compose.folder / "base", compose.folder / "base.tar"
    release = release_of(Path("deploy/docker/Dockerfile").read_text(encoding="utf-8"))
    command = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", release, str(root)]
    done = compose.run(*command, *mirror(release), deadline_s=BASE_S)
    if done.returncode != 0:
        pytest.skip(f"no base image can be made here: {' '.join(command)}: {(done.stdout + done.stderr)[-300:]}")
    (root / "etc/apt/apt.conf.d/99here").write_text("\n".join([*apt_settings(), ""]))
    # Devices and what the engine mounts are its own affair.
    left_out = [f"--exclude=./{path}/*" for path in ("dev", "proc", "sys", "var/cache/apt/archives")]
    compose.must("tar", *left_out, "-C", str(root), "-cf", str(archive), ".", deadline_s=FIND_S * 5)
    shutil.rmtree(root)
    compose.must("podman", "import", "--change", "ENV LANG=C.UTF-8", str(archive), BASE, deadline_s=FIND_S * 5)
    archive.unlink()


def release_of(dockerfile: str) -> str:
    """Debian's release behind the Dockerfile's own base."""
    found = re.search(r"^ARG BASE_IMAGE=\S+-slim-(\w+)$", dockerfile, re.MULTILINE)
    assert found is not None, "the Dockerfile's base names no release of Debian"
    return found[1]


def mirror(release: str) -> list[str]:
    """Where this machine's apt has that release from; empty where it has another one: debootstrap knows a mirror."""
    shown = "$(LABEL) $(CODENAME) $(REPO_URI)"
    for line in _lines("apt-get", "indextargets", "--format", shown, "Created-By: Packages"):
        if line.startswith(f"Debian {release} "):
            return line.split()[2:3]
    return []


def apt_settings() -> list[str]:
    """How this machine's apt fetches: proxies, and whether old lists will do."""
    return [line for line in _lines("apt-config", "dump") if OF_APT.match(line)]


def pip_volumes(folder: Path) -> list[str]:
    """Arguments for `podman build`: this machine's settings of pip as /etc/pip.conf, and the folders that they name."""
    settings = pip_settings(_lines(sys.executable, "-m", "pip", "config", "list"))
    lines = [f"{name} = {' '.join(values)}" for name, values in settings.items()]
    (folder / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    mounted = [f"{folder}/pip.conf:/etc/pip.conf:ro", *(f"{path}:{path}:ro" for path in sorted(paths_in(settings)))]
    return [word for volume in mounted for word in ("--volume", volume)]


def pip_settings(lines: list[str]) -> dict[str, list[str]]:
    """Of what `pip config list` prints: where packages are. The environment comes first there, and wins."""
    found: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in OF_PIP:
            found.setdefault(name, str(ast.literal_eval(value)).split())
    return found


def paths_in(settings: dict[str, list[str]]) -> set[str]:
    """Files and folders that they name. An index is mounted with its siblings: its pages point to files beside it."""
    found = set()
    for name, values in settings.items():
        for value in values:
            path = Path(value.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                found.add(str(path.parent if name in INDEXES else path))
    return found - {"/"}


def _lines(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=FIND_S, check=False)
    return done.stdout.splitlines()
