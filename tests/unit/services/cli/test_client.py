"""Which run a command means, and what it says when there is none."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from rayzero.services.cli.changes import parse_targets
from rayzero.services.cli.client import RunAddress, RunClient, find_directory, find_run
from rayzero.services.cli.run_list import describe
from rayzero.services.schema.errors import RunUnreachable, UsageError
from rayzero.services.store.api_file import LiveRun
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import make_recipe
from tests.system import AS_ROOT


def make_run(folder: Path, url: str | None) -> None:
    directory = RunDirectory(folder)
    directory.prepare(make_recipe())
    directory.release()
    if url is not None:
        LiveRun.here(url).write(folder / "api.json")


def killed(folder: Path) -> None:
    """Its process is gone; its number is another process's, as numbers come again."""
    file = folder / "api.json"
    found = LiveRun.read(file)
    replace(found, started=found.started - 1).write(file)


@contextlib.contextmanager
def server(run_id: str) -> Iterator[tuple[str, list[str]]]:
    """One that calls itself that run; its URL, and all that it was sent."""
    sent: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(f"{self.command} {self.path} {self.headers.get('authorization', '')}".strip())
            self.send_response(200)
            self.send_header("x-rayzero-run", run_id)
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as served:
        Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}", sent
        served.shutdown()


def test_a_run_is_found_by_path_by_name_by_url_or_because_it_lives(tmp_path: Path) -> None:
    make_run(tmp_path / "old", None)
    make_run(tmp_path / "live", "http://127.0.0.1:1")
    wanted = RunAddress("http://127.0.0.1:1", LiveRun.read(tmp_path / "live" / "api.json").run_id)
    assert (
        find_run(str(tmp_path / "live"), tmp_path) == find_run("live", tmp_path) == find_run(None, tmp_path) == wanted
    )
    assert find_run("http://host:8100/", tmp_path) == RunAddress("http://host:8100")
    assert find_directory("old", tmp_path) == tmp_path / "old"


def test_a_run_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    make_run(tmp_path / "old", None)
    with pytest.raises(RunUnreachable, match="not alive: it was stopped"):
        find_run("old", tmp_path)
    (tmp_path / "old" / "summary.json").write_text("{}")
    with pytest.raises(RunUnreachable, match="it has finished"):
        find_run("old", tmp_path)
    with pytest.raises(UsageError, match="runs there: old"):
        find_run("new", tmp_path)
    with pytest.raises(RunUnreachable, match="no run below"):
        find_run(None, tmp_path)


def test_a_directory_with_a_recipe_alone_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = Path("runs")
    Path("mine").mkdir()
    Path("mine/recipe.yaml").write_text("name: mine\n")
    with pytest.raises(UsageError, match=r"no run in mine nor in runs/mine: .*`rayzero train mine/recipe.yaml` begins"):
        find_directory("mine", runs)
    make_run(tmp_path / "runs" / "mine", None)
    assert find_directory("mine", runs) == find_directory("runs/mine", runs) == tmp_path / "runs" / "mine"
    with pytest.raises(UsageError, match=r"no run in other nor in runs/other: .*; runs there: mine$"):
        find_directory("other", runs)


def test_a_run_that_was_killed_is_neither_live_nor_asked(tmp_path: Path) -> None:
    for name in ("live", "killed"):  # the killed one is the newer
        make_run(tmp_path / name, f"http://{name}:1")
    killed(tmp_path / "killed")
    assert find_run(None, tmp_path).url == "http://live:1"
    with pytest.raises(RunUnreachable, match="was killed"):
        find_run("killed", tmp_path)
    states = [describe(RunDirectory(tmp_path / name))["state"] for name in ("live", "killed")]
    assert states == ["live", "stopped"]


def test_the_process_that_wrote_the_file_is_looked_for(tmp_path: Path) -> None:
    """With a real process, and SIGKILL."""
    code = "import sys; from pathlib import Path; from rayzero.services.store.api_file import LiveRun as L\n"
    code += f"L.here('http://h:1').write(Path({str(tmp_path / 'api.json')!r})); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"1\n"
        assert LiveRun.read(tmp_path / "api.json").is_alive
        process.kill()
    assert LiveRun.read(tmp_path / "api.json").is_alive is False


def test_nothing_but_the_run_that_is_meant_is_asked_or_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run has the port by now; it is given no token either."""
    monkeypatch.setenv("RAYZERO_API_TOKEN", "our-token-for-our-run")
    with server("another") as (url, sent):
        make_run(tmp_path / "run", url)
        with pytest.raises(RunUnreachable, match="another server answers there"):
            RunClient(find_run("run", tmp_path)).change("/v1/pause")
        assert sent == ["GET /healthz"]


def test_on_another_machine_the_run_is_asked_whether_it_lives(tmp_path: Path) -> None:
    with server("mine") as (url, sent):
        make_run(tmp_path / "run", url)
        file = tmp_path / "run" / "api.json"
        there = replace(LiveRun.read(file), pid_space="another machine")
        there.write(file)
        with pytest.raises(RunUnreachable, match="no run below"):
            find_run(None, tmp_path)
        replace(there, run_id="mine").write(file)
        assert find_run(None, tmp_path) == RunAddress(url, "mine")
        assert set(sent) == {"GET /healthz"}


def test_the_users_word_alone_says_which_secret_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("RAYZERO_API_TOKEN", "our-token")
    monkeypatch.setenv("OTHER_TOKEN", "other-token")
    with server("r") as (url, sent):
        make_run(tmp_path / "run", url)
        file = tmp_path / "run" / "api.json"
        content = json.loads(file.read_text()) | {"run_id": "r", "token_env": "AWS_SECRET_ACCESS_KEY"}
        file.write_text(json.dumps(content))
        RunClient(find_run("run", tmp_path)).get("/v1/status")
        RunClient(find_run("run", tmp_path, "OTHER_TOKEN")).get("/v1/status")
    assert [line.split()[-1] for line in sent if "status" in line] == ["our-token", "other-token"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"url": 3}', "null", '{"url": "http://127.0.0.1:9", "pid": "x"}'])
def test_a_file_that_is_not_a_runs_is_explained(tmp_path: Path, content: str) -> None:
    make_run(tmp_path / "run", "http://127.0.0.1:1")
    (tmp_path / "run" / "api.json").write_text(content)
    with pytest.raises(RunUnreachable, match=r"api\.json cannot be read, or is of another version"):
        find_run("run", tmp_path)
    with pytest.raises(RunUnreachable, match="no run below"):
        find_run(None, tmp_path)


@AS_ROOT
def test_another_users_file_is_not_believed(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "http://127.0.0.1:1")
    assert (tmp_path / "run" / "api.json").stat().st_mode & 0o777 == 0o600
    os.chown(tmp_path / "run" / "api.json", 65534, 65534)
    with pytest.raises(RunUnreachable, match="written by another user"):
        find_run("run", tmp_path)


def test_a_run_that_does_not_answer_is_named() -> None:
    with pytest.raises(RunUnreachable, match="cannot be reached"):
        RunClient(RunAddress("http://127.0.0.1:9")).get("/v1/status")


def test_targets_are_read_or_refused() -> None:
    assert parse_targets(["rollout=3", "reward=0"]) == {"rollout": 3, "reward": 0}
    for wrong in (["rollout"], ["rollout=-1"], ["learner=2"], ["rollout=1", "rollout=2"], ["rollout=two"]):
        with pytest.raises(UsageError, match="write it as"):
            parse_targets(wrong)
