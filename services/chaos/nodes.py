"""A Ray cluster of several nodes on this machine, made to lose some of them."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from rayzero.services.fleet.local_ray import RAY_FOLDER, token_required
from rayzero.services.schema.errors import ActorStartError
from rayzero.services.schema.temporary import own_folder
from rayzero.services.store.run_directory import write_atomically

RESOURCE = "storm"
"""What the nodes that may be killed have and the head has not: every actor asks for it."""

CPUS_PER_NODE = 16
OBJECT_STORE_BYTES = 100 * 2**20
START_S = 60.0


class LocalNodes:
    """A head that lives and `num_nodes` workers that may be killed; `tend` replaces those that are gone."""

    def __init__(self, num_nodes: int, pids: Path, log: Path) -> None:
        """`pids` is kept up to date with the process ids of the workers' raylets; `log` takes all they print."""
        self.num_nodes, self.pids, self.log = num_nodes, pids, log
        self.address = ""
        self._folder: Path | None = None
        self._token = contextlib.ExitStack()
        self._head: subprocess.Popen[bytes] | None = None
        self._nodes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> LocalNodes:
        """Start the head, then the others beside each other. Drivers that are started meanwhile know the token."""
        self._token.enter_context(token_required())
        self._folder = own_folder()
        port = _free_port()
        self.address = f"127.0.0.1:{port}"
        try:
            self._head = self._start(
                "--head", "--port", str(port), "--temp-dir", str(self._folder / RAY_FOLDER), "--num-cpus", "0"
            )
            _wait_for(port, self._head)
            self.tend()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End every process of every node."""
        for process in (*self._nodes, *([self._head] if self._head is not None else [])):
            end_tree(process)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._token.close()

    def tend(self) -> None:
        """Start as many nodes as are missing, and write down who lives."""
        for node in [node for node in self._nodes if node.poll() is not None or not _raylets(node)]:
            if node.poll() is not None or time.time() - psutil.Process(node.pid).create_time() > START_S:
                end_tree(node)
                self._nodes.remove(node)
        while len(self._nodes) < self.num_nodes:
            resources = json.dumps({RESOURCE: 1000})
            self._nodes.append(
                self._start("--address", self.address, "--num-cpus", str(CPUS_PER_NODE), "--resources", resources)
            )
        write_atomically(self.pids, json.dumps([pid for node in self._nodes for pid in _raylets(node)]))

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, "--node-ip-address", "127.0.0.1"]
        # Ports chosen by the system: nodes on one machine would otherwise take each other's.
        ports = ["--min-worker-port", "0", "--max-worker-port", "0", "--dashboard-agent-listen-port", "0"]
        common = ["--object-store-memory", str(OBJECT_STORE_BYTES), "--disable-usage-stats", "--block"]
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [*command, *ports, *common, *(["--include-dashboard", "false"] if "--head" in arguments else [])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that this one started, with everything below it."""
    with contextlib.suppress(psutil.Error):
        tree = psutil.Process(process.pid)
        for child in [*tree.children(recursive=True), tree]:
            with contextlib.suppress(psutil.Error):
                child.kill()
    process.wait(timeout=30)


def _raylets(node: subprocess.Popen[bytes]) -> list[int]:
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(node.pid).children(recursive=True)
        return [child.pid for child in children if child.name() == "raylet" and child.status() != "zombie"]
    return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.1)
    raise ActorStartError(f"the local Ray head did not come up on port {port} within {START_S:g} s")
