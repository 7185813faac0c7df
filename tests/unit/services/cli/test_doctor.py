"""What the doctor finds on machines that lack something, and on one that does not."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rayzero.services.cli.doctor import (
    _check_cluster,
    _only_rewards,
    check_environment,
    check_machine,
    check_prometheus,
    check_sandbox,
    doctor,
)
from rayzero.services.planning.health import ClusterNode
from rayzero.services.planning.machine import Machine, examine, job_problem

WELL = Machine(
    host="a",
    python="3.11.7",
    packages={"ray": "2.60.0", "vllm": "0.32.0", "rayzero": "0.1.0 (0a0a0a0a)"},
    num_cpus=8,
    gpus=("GPU 0: H100",),
    shm_bytes=2**33,
    open_files=65536,
    time_s=0.0,
    model_found=True,
    probe_found=True,
    runs_free_bytes=2**40,
    bytecode=True,
)


def problems(machine: Machine) -> list[str]:
    return [finding.what for finding in check_machine("b", machine, WELL) if finding.level != "ok"]


def test_a_machine_that_is_well_has_no_problem() -> None:
    assert problems(WELL) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shm_bytes": 2**26}, "/dev/shm: 0.1 GiB"),
        ({"open_files": 1024}, "1024 open files"),
        ({"model_found": False}, "model's directory is not there"),
        ({"probe_found": False}, "does not see the runs directory"),
        ({"runs_free_bytes": 2**20}, "disk of the runs"),
        ({"bytecode": False}, "vLLM is not compiled"),
        ({"packages": {"ray": "2.60.0"}}, "vLLM is not installed"),
        ({"packages": {"ray": "2.59.0", "vllm": "0.32.0"}}, "ray 2.59.0, the driver has 2.60.0"),
        (
            {"packages": WELL.packages | {"rayzero": "0.1.0 (0b0b0b0b)"}},
            "rayzero 0.1.0 (0b0b0b0b), the driver has 0.1.0",
        ),
        ({"python": "3.12.1"}, "Python 3.12.1, the driver has 3.11.7"),
        ({"job_problem": "a job's `python` is /usr/bin/python"}, "a job's `python` is /usr/bin/python"),
    ],
)
def test_what_is_missing_is_named(change: dict[str, Any], said: str) -> None:
    (found,) = problems(dataclasses.replace(WELL, **change))
    assert said in found


def test_a_node_for_rewards_alone_needs_no_engine_no_model_and_no_runs() -> None:
    bare = dataclasses.replace(WELL, probe_found=False, model_found=False, bytecode=False, packages={"ray": "2.60.0"})
    assert [f.what for f in check_machine("b", bare, WELL, only_rewards=True) if f.level != "ok"] == []
    assert _only_rewards({"reward": 8, "CPU": 8}) and not _only_rewards({"reward": 8, "rollout": 1})
    assert not _only_rewards({"CPU": 2}), "without marks any actor may be placed there"


def test_disagreeing_tokens_are_found(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")
    (found,) = check_environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": nowhere})
    assert found.level == "fail" and "no token" in found.what
    (tmp_path / "token").write_text("t")
    (found,) = check_environment({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})
    assert found.level == "warn" and "RAY_AUTH_MODE is not set" in found.what
    (found,) = check_environment({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})
    assert found.level == "ok"


def test_this_machine_is_examined(tmp_path: Path) -> None:
    (tmp_path / "probe").write_text("")
    machine = examine(tmp_path / "no-model", tmp_path / "runs" / "deep", None)
    assert re.fullmatch(r"\S+ \([0-9a-f]{8}\)", machine.packages["rayzero"])
    assert machine.num_cpus >= 1 and not machine.model_found and machine.runs_free_bytes > 0
    assert examine(None, tmp_path, "probe").probe_found and not examine(None, tmp_path, "other").probe_found


def test_what_isolates_programs_is_told_with_the_reason_and_the_fix() -> None:
    (found,) = check_sandbox("b", ("bwrap", {}))
    assert found.level == "ok" and "bwrap" in found.what
    (found,) = check_sandbox("b", ("landlock", {"bwrap": "bwrap: Can't mount proc on /newroot/proc"}))
    assert found.level == "warn" and "Can't mount proc" in found.what and "systempaths=unconfined" in found.fix
    (found,) = check_sandbox("b", ("", {"bwrap": "bubblewrap is not installed", "landlock": "ABI 0 is too old"}))
    assert found.level == "warn" and "too old" in found.what and "apt install bubblewrap" in found.fix
    (found,) = check_sandbox("10.0.0.7", None)
    assert (found.level, found.where) == ("warn", "10.0.0.7") and "does not say" in found.what


def test_each_node_says_what_isolates_programs_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {"bwrap": "bubblewrap is not installed", "landlock": "ABI 0 is too old"}
    nodes = [
        ClusterNode(address="n1", resources={"reward": 1.0}, machine=WELL, isolation=("bwrap", {})),
        ClusterNode(address="n2", resources={"reward": 1.0}, machine=WELL, isolation=("", reasons)),
        ClusterNode(address="engines", resources={"rollout": 1.0}, machine=WELL, isolation=("", reasons)),
        ClusterNode(address="n3", resources={"reward": 1.0}, machine=WELL),
    ]
    monkeypatch.setattr("rayzero.services.planning.health.ask_nodes", lambda *asked: nodes)
    found = [finding for finding in _check_cluster("auto", None, tmp_path) if "isolate" in finding.what]
    assert [(finding.where, finding.level) for finding in found] == [("n1", "ok"), ("n2", "warn"), ("n3", "warn")]
    assert "ABI 0 is too old" in found[1].what


def test_json_and_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def chosen() -> tuple[str, dict[str, str]]:
        return "bwrap", {}

    monkeypatch.setattr("rayzero.services.cli.doctor.chosen_backend", chosen)
    assert doctor(None, None, tmp_path, "http://127.0.0.1:9", as_json=True) == 1
    findings = json.loads(capsys.readouterr().out)
    assert any(finding["level"] == "fail" and "Prometheus" in finding["what"] for finding in findings)


def test_a_target_that_is_down_is_named() -> None:
    down = {"scrapeUrl": "http://x/metrics", "health": "down", "lastError": "refused", "labels": {}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": {"activeTargets": [down]}}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.handle_request, daemon=True).start()
        found = list(check_prometheus(f"http://127.0.0.1:{server.server_port}"))
    assert [finding.level for finding in found] == ["fail", "warn", "ok"]
    assert "x/metrics is down: refused" in found[0].what


def test_the_python_of_a_job_is_asked_to_run_this_rayzero(tmp_path: Path) -> None:
    assert job_problem(sys.executable) == ""
    assert "there is no `no-such-python` on Ray's PATH" in job_problem("no-such-python")
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'typer'\" >&2; exit 1\n")
    bare.chmod(0o755)
    assert job_problem(str(bare)).endswith("cannot run rayzero (ModuleNotFoundError: No module named 'typer')")
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho '0.0.9 (ffffffff)'\n")
    other.chmod(0o755)
    assert "which has rayzero 0.0.9 (ffffffff), and Ray's has" in job_problem(str(other))
