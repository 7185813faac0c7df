"""A real Prometheus of a test's own: scrapes what the test says, answers PromQL, ends with the test."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ALERTS = Path("deploy/prometheus/alerts.yml").resolve()
START_S = 30.0


class Prometheus:
    """Asks one Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **query: str) -> Any:
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=20) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query; an expression that is wrong raises."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def targets(self) -> dict[str, str]:
        """Health of every target that is scraped now, by instance."""
        active = self.ask("targets", state="active")["activeTargets"]
        return {target["labels"]["instance"]: target["health"] for target in active}

    def wait_for(self, expression: str, deadline_s: float = 60.0) -> list[dict[str, Any]]:
        """Until an expression has a result."""
        deadline = time.monotonic() + deadline_s
        while not (found := self.query(expression)):
            assert time.monotonic() < deadline, f"{expression} stayed empty for {deadline_s:g} s: {self.targets()}"
            time.sleep(0.5)
        return found

    def wait_for_targets(self, wanted: set[str], deadline_s: float = 60.0) -> None:
        """Until exactly these instances are scraped, and all answer."""
        deadline = time.monotonic() + deadline_s
        while (targets := self.targets()) != dict.fromkeys(wanted, "up"):
            assert time.monotonic() < deadline, f"wanted {sorted(wanted)}, scraped are {targets}"
            time.sleep(0.5)


@contextmanager
def prometheus(folder: Path, run_url: str, token: str, interval: str = "1s") -> Iterator[Prometheus]:
    """One that discovers a run's targets at `run_url`/sd and evaluates the committed alerts."""
    credentials = {"authorization": {"type": "Bearer", "credentials": token}}
    discovery = {"url": f"{run_url}/sd", "refresh_interval": "1s", **credentials}
    job = {"job_name": "rayzero", "http_sd_configs": [discovery], **credentials}
    settings = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [job],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with open(folder / "prometheus.log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(_ready(f"http://127.0.0.1:{port}", process, folder / "prometheus.log"))
        finally:
            process.terminate()
            process.wait(timeout=20)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ready(url: str, process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=2):
                return url
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
