"""A Ray of several nodes on this machine, for a test: each node its own `ray start`, joined and killed at will."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from rayzero.services.chaos.nodes import end_tree
from tests.prometheus import free_port

BIN = Path(sys.executable).parent
START_S = 90.0
ATTEMPTS = 3
"""Of each node: Ray gives it 30 s, which is not always enough on a busy machine."""
STARTED = "Ray runtime started"


class RayNodes:
    """Nodes by name. `environment` is what every process of theirs has besides this process's own."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        self.port, self.dashboard = free_port(), free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},  # a job brings its own code
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            # On a busy machine Ray's 15 would keep engines from ever coming up, and 0 a node from joining in its 30 s.
            "RAY_worker_niceness": "5",
            "RAY_prestart_worker_first_driver": "0",  # idle workers that no actor can use: each has its environment
            **environment,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # Short: a socket's path may have 107 bytes.
        self.scratch = Path(f"/tmp/rz-{os.getpid()}")
        self.scratch.mkdir(mode=0o700)  # Ray opens each node's own folder to every user

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def dashboard_url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def start_head(self, num_cpus: int, resources: Mapping[str, float]) -> None:
        """With the dashboard, to which jobs are submitted; returns when it answers."""
        arguments = ["--head", f"--port={self.port}", "--include-dashboard=true"]
        arguments += ["--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard}"]
        self._start("head", num_cpus, resources, *arguments, f"--ray-client-server-port={free_port()}")
        self.wait_until(self._takes_jobs)

    def join(self, name: str, num_cpus: int, resources: Mapping[str, float]) -> None:
        """Returns when the node is up."""
        self._start(name, num_cpus, resources, f"--address={self.address}")

    def kill(self, name: str) -> None:
        """SIGKILL to every process of the node."""
        end_tree(self.processes.pop(name))

    def node_of(self, pid: int) -> str:
        """On which node a process lives."""
        ancestors = {process.pid for process in psutil.Process(pid).parents()}
        return next(name for name, process in self.processes.items() if process.pid in ancestors)

    def run(self, *command: str, deadline_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """A command as a user on the head node would type it."""
        return subprocess.run(
            command, capture_output=True, text=True, timeout=deadline_s, check=False, env=self.environment
        )

    def job_states(self) -> set[str]:
        """Of all jobs, as Ray's dashboard tells them, e.g. {"RUNNING"}."""
        with self._jobs(timeout_s=30) as response:
            return {str(job["status"]) for job in json.load(response)}

    def wait_until(self, condition: Callable[[], Any], deadline_s: float = START_S) -> None:
        deadline = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.5)

    def close(self) -> None:
        for process in reversed(self.processes.values()):
            end_tree(process)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _takes_jobs(self) -> bool:
        with contextlib.suppress(OSError), self._jobs(timeout_s=10):
            return True
        return False

    def _jobs(self, timeout_s: float) -> Any:
        request = urllib.request.Request(f"{self.dashboard_url}/api/jobs/")
        request.add_header("Authorization", f"Bearer {self.environment['RAY_AUTH_TOKEN']}")
        return urllib.request.urlopen(request, timeout=timeout_s)

    def _start(self, name: str, num_cpus: int, resources: Mapping[str, float], *arguments: str) -> None:
        command = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
        # Free ones for every node: they would otherwise take each other's.
        command += ["--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"]
        command += [f"--num-cpus={num_cpus}", f"--resources={json.dumps(resources)}", "--object-store-memory=100000000"]
        # Of its own: in a shared one a node that joins takes away the unpacked code from under a job that runs.
        command += [f"--temp-dir={self.scratch / name}"]
        for _ in range(ATTEMPTS):
            begun = self.log.stat().st_size if self.log.exists() else 0
            with open(self.log, "ab") as log:
                self.processes[name] = process = subprocess.Popen(
                    [*command, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self.environment,
                    start_new_session=True,
                )
            self.wait_until(partial(self._has_begun_or_ended, process, begun))
            if process.poll() is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"node {name} does not start: {self.log.read_text()[-4000:]}")

    def _has_begun_or_ended(self, process: subprocess.Popen[bytes], begun: int) -> bool:
        return process.poll() is not None or self._says(STARTED, begun)

    def _says(self, words: str, begun: int) -> bool:
        return words in self.log.read_bytes()[begun:].decode(errors="replace")
