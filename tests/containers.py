"""The compose file's containers on this machine, without a registry: the images are empty but for directories, and this
machine's own system, Python and checkout are mounted into them, read-only. Everything else is as committed."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path.cwd()
TOKENS = {
    "RAY_AUTH_TOKEN": "ray-token", "RAYZERO_API_TOKEN": "api-token-of-the-tests", "GRAFANA_ADMIN_PASSWORD": "password",
}  # fmt: skip
SECRETS = {"api_token": "RAYZERO_API_TOKEN", "ray_token": "RAY_AUTH_TOKEN"}
RAY_SERVICES = ("ray-head", "learner", "rollout-worker", "reward-worker")
OURS = ("rayzero/train:0.2.0", "rayzero/reward:0.2.0")
PROBE = "rayzero_probe"
EMPTY = "localhost/rayzero-empty"
FOLDERS = ("usr", "etc", "proc", "sys", "dev", "root", "var", "opt/rayzero", "tmp", "runs", "models", "home/rayzero")
USERS = "root:x:0:0::/root:/bin/bash\nrayzero:x:1000:1000::/home/rayzero:/bin/bash\n"
SETTINGS = """
[containers]
cgroupns = "host"
default_ulimits = ["nofile=8192:8192", "nproc=16384:16384"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""


class Apart:
    """Namespaces for processes, networks and mounts, with an empty state of the container engine."""

    STATE = "/run/containers"
    START_S = 10.0

    def __init__(self) -> None:
        Path(self.STATE).mkdir(exist_ok=True)
        own = ("--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child")
        # setpriv: a killed test ends them, too. catatonit: it reaps what containers' monitors leave behind.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *own, "catatonit", "-P"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.enter: tuple[str, ...] = ()

    def open(self) -> None:
        """Skips where there are none to be had."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        deadline = time.monotonic() + self.START_S
        while not (found := children.read_text().split() if self.process.poll() is None else []):
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.skip("a test gets no namespaces of its own here")
            time.sleep(0.02)
        self.enter = ("nsenter", "--target", found[0], "--net", "--mount", "--pid", f"--wdns={CHECKOUT}", "--")
        for command in ("ip link set lo up", f"mount -t tmpfs apart {self.STATE}"):
            subprocess.run([*self.enter, *command.split()], check=True, timeout=self.START_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Compose:
    """`podman-compose` over the committed files, with images, containers and networks of its own."""

    def __init__(self, folder: Path, enter: Sequence[str] = ()) -> None:
        """`enter`: what its commands begin with."""
        self.folder, self.enter = folder, enter
        (folder / "containers.conf").write_text(SETTINGS.format(folder=folder))
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
        )
        self.environment = {
            **os.environ,
            **TOKENS,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }

    def run(
        self, *command: str, deadline_s: float = 120.0, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`text`: for its standard input."""
        return subprocess.run(
            [*self.enter, *command],
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
            env=self.environment,
            input=text,
        )

    def must(self, *command: str, deadline_s: float = 120.0) -> str:
        done = self.run(*command, deadline_s=deadline_s)
        assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout

    def compose(self, *arguments: str, build: Sequence[str] = (), deadline_s: float = 120.0) -> str:
        """`build`: arguments for `podman build`."""
        files = ("docker-compose.yml", "deploy/docker/compose.cpu.yml", str(self.folder / "here.yml"))
        options = [f"--podman-build-args={shlex.join(build)}"] if build else []
        options += [word for file in files for word in ("-f", file)]
        return self.must("podman-compose", *options, *arguments, deadline_s=deadline_s)

    def inside(
        self, service: str, *command: str, number: int = 1, deadline_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        return self.run("podman", "exec", f"rayzero_{service}_{number}", *command, deadline_s=deadline_s)

    def prepare(self) -> None:
        """Images that are empty, and the override that mounts this machine into them. Skips where no container runs."""
        self.probe()
        for image in OURS:
            self.must("podman", "tag", EMPTY, f"docker.io/{image}")
        self.override(_mounts())

    def probe(self) -> None:
        """Skips where no container runs."""
        if os.geteuid() != 0:
            pytest.skip("only root may give an image's files to its users")
        empty, archive = self.folder / "empty", self.folder / "image.tar"
        _make_root(empty)
        with tarfile.open(archive, "w") as tar:
            tar.add(empty, arcname=".")
        self.must_or_skip("podman", "import", str(archive), EMPTY)
        self.must_or_skip("podman", "network", "create", "--internal", PROBE)
        run = ("podman", "run", "--rm", "--network", PROBE, "--volume", "/usr:/usr:ro")
        self.must_or_skip(*run, EMPTY, "/usr/bin/true")

    def override(self, services: Mapping[str, Mapping[str, object]]) -> None:
        """What is other here than in the committed files; ports and limits are so in any case."""
        here = {name: {**_limits(), **services.get(name, {})} for name in RAY_SERVICES}
        content = yaml.safe_dump({"services": {**services, **here}})
        (self.folder / "here.yml").write_text(content + _secrets(self.folder))

    def must_or_skip(self, *command: str, deadline_s: float = 120.0) -> None:
        done = self.run(*command, deadline_s=deadline_s)
        if done.returncode != 0:
            pytest.skip(f"podman runs no container here: {' '.join(command)}: {done.stderr.strip()[-300:]}")

    def close(self) -> None:
        self.run("podman", "rm", "--all", "--force", "--time", "0")
        self.run("podman", "network", "rm", "--force", PROBE, "rayzero_ray", "rayzero_watch")
        self.run("podman", "system", "reset", "--force")
        shutil.rmtree(self.folder / "graph", ignore_errors=True)


@contextmanager
def containers(folder: Path) -> Iterator[Compose]:
    """Images are there, nothing runs yet; afterwards nothing is left."""
    apart = Apart()
    try:
        apart.open()
        found = Compose(folder, apart.enter)
        try:
            found.prepare()
            yield found
        finally:
            found.close()
    finally:
        apart.close()


def _make_root(root: Path) -> None:
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc" / "passwd").write_text(USERS)
    (root / "etc" / "group").write_text("root:x:0:\nrayzero:x:1000:\n")
    (root / "tmp").chmod(0o1777)
    for folder in ("runs", "models", "home/rayzero"):
        os.chown(root / folder, 1000, 1000)


def _secrets(folder: Path) -> str:
    """As files: podman-compose takes none from the environment."""
    lines = ["secrets:"]
    for name, variable in SECRETS.items():
        (folder / name).write_text(TOKENS[variable])
        lines.append(f"  {name}: !override {{file: {folder / name}}}")
    return "\n".join([*lines, ""])


def _limits() -> dict[str, object]:
    limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    hard = {name: min(16384, resource.getrlimit(number)[1]) for name, number in limits.items()}
    # Who runs in a container already may not raise its limits.
    return {"ports": [], "ulimits": {name: {"soft": value, "hard": value} for name, value in hard.items()}}


def _mounts() -> dict[str, dict[str, object]]:
    folders = sorted({"/usr", sys.prefix, sys.base_prefix})
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    ours: dict[str, object] = {
        "volumes": [*(f"{folder}:{folder}:ro" for folder in folders), f"{CHECKOUT}:/opt/rayzero:ro"],
        "working_dir": "/opt/rayzero",
        "environment": {"PATH": path, "PYTHONPATH": "/opt/rayzero", "HOME": "/home/rayzero", "LANG": "C.UTF-8"},
    }
    prometheus: dict[str, object] = {
        "image": OURS[0],
        "entrypoint": ["/usr/bin/prometheus"],
        "volumes": ["/usr:/usr:ro"],
    }
    return {**dict.fromkeys(RAY_SERVICES, ours), "prometheus": prometheus}
