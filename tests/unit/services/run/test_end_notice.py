"""A run's end reaches a command and a URL; what goes wrong there is a sentence and touches nothing."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.run.end_notice import tell, told_at_end
from rayzero.services.schema.config.observe import ObserveSettings, OnEndSettings
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import make_recipe

COPY = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    append_lines(directory.file("metrics.jsonl"), [{"update": 7}])
    append_lines(directory.file("evaluations.jsonl"), [{"update": 0, "accuracy": 0.25}])
    return directory


def settings_for(file: Path) -> OnEndSettings:
    return OnEndSettings(command=(sys.executable, "-c", COPY, str(file)))


@pytest.mark.parametrize(("exit_code", "ended"), [(0, "finished"), (130, "stopped")])
def test_a_command_gets_it_on_its_standard_input(
    directory: RunDirectory, tmp_path: Path, exit_code: int, ended: str
) -> None:
    recipe = make_recipe().model_copy(update={"observe": ObserveSettings(on_end=settings_for(tmp_path / "told"))})
    said: list[str] = []
    with told_at_end(recipe, directory, said.append) as end:
        end.exit_code = exit_code
    told = json.loads((tmp_path / "told").read_text())
    assert (told["ended"], told["updates"], told["accuracy"], told["error"]) == (ended, 7, 0.25, "")
    assert told["directory"] == str(directory.path) and not said


def test_a_failure_goes_on_as_it_was(directory: RunDirectory, tmp_path: Path) -> None:
    recipe = make_recipe().model_copy(update={"observe": ObserveSettings(on_end=settings_for(tmp_path / "told"))})
    with pytest.raises(RuntimeError, match="the learner died"), told_at_end(recipe, directory, print):
        raise RuntimeError("the learner died")
    told = json.loads((tmp_path / "told").read_text())
    assert (told["ended"], told["error"]) == ("failed", "the learner died")


@pytest.mark.parametrize(
    ("code", "deadline_s", "problem"),
    [
        ("import sys; sys.exit('no such chat')", 10.0, "ended with 1: no such chat"),
        ("import time; time.sleep(60)", 0.5, "took longer than 0.5 s"),
    ],
)
def test_a_command_that_fails_or_hangs_is_a_sentence(code: str, deadline_s: float, problem: str) -> None:
    began = time.monotonic()
    said = tell(OnEndSettings(command=(sys.executable, "-c", code), deadline_s=deadline_s), {"run": "demo"})
    assert problem in said and time.monotonic() - began < 20


@pytest.fixture
def hook() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """A server, and what it was told."""
    told: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.append((self.headers.get("authorization", ""), json.loads(body)))
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Not on the terminal."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()
    server.server_close()


def test_a_url_gets_it_with_a_token_that_the_environment_holds(
    hook: tuple[str, list[tuple[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, told = hook
    monkeypatch.setenv("CHAT_URL", f"{url}/secret-path")
    monkeypatch.setenv("CHAT_TOKEN", "t0ken")
    assert tell(OnEndSettings(url_env="CHAT_URL", token_env="CHAT_TOKEN"), {"run": "demo"}) == ""
    assert told == [("Bearer t0ken", {"run": "demo"})]
    assert "answered 500" in tell(OnEndSettings(url=f"{url}/broken"), {"run": "demo"})
    assert "NOT_SET is not set" in tell(OnEndSettings(url_env="NOT_SET"), {"run": "demo"})
    monkeypatch.setenv("CHAT_URL", "http://127.0.0.1:1/secret-path")
    assert "secret-path" not in tell(OnEndSettings(url_env="CHAT_URL"), {"run": "demo"}), "a webhook's URL is a secret"


def test_settings_that_tell_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="tells nothing"):
        OnEndSettings()
