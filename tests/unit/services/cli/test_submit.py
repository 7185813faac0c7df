"""What `rayzero submit` hands to Ray, and what it never shows."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rayzero.services.cli.submit import (
    STOP_WAIT_S,
    Job,
    _why_refused,
    begin,
    connect,
    follow,
    plan_job,
    run_directories,
)
from rayzero.services.schema.errors import DeadlineError, RunUnreachable, UsageError

RECIPE = Path("deploy/recipes/demo.yaml")


def test_the_job_trains_on_the_cluster_with_time_to_save(tmp_path: Path) -> None:
    job = plan_job(RECIPE, ["seed=1"], tmp_path, "demo-1", [], head=True)
    words = shlex.split(job.entrypoint)
    assert words[:4] == ["python", "-m", "rayzero", "train"]
    assert words[4:] == [str(RECIPE), "seed=1", "cluster.address=auto", "--runs", str(tmp_path)]
    assert job.runtime_env["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
    assert {".git", "runs", ".venv"} <= set(job.runtime_env["excludes"])
    assert job.entrypoint_resources == {"head": 0.001}
    assert job.command_line("http://h:1").startswith("ray job submit --address http://h:1 --submission-id demo-1")


def test_an_address_of_the_recipe_stays(tmp_path: Path) -> None:
    job = plan_job(RECIPE, ["cluster.address=10.0.0.1:6379"], tmp_path, None, [], head=False)
    assert "cluster.address=auto" not in job.entrypoint and job.submission_id.startswith("demo-")


def test_a_variable_is_passed_and_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "s3cret")
    job = plan_job(RECIPE, [], tmp_path, None, ["WANDB_API_KEY"], head=False)
    assert job.runtime_env["env_vars"]["WANDB_API_KEY"] == "s3cret"
    assert "s3cret" not in job.command_line("http://h:1") and "$WANDB_API_KEY" in job.command_line("http://h:1")
    with pytest.raises(UsageError, match="NOT_SET"):
        plan_job(RECIPE, [], tmp_path, None, ["NOT_SET"], head=False)


def test_typed_by_hand_the_line_passes_the_variables_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "s3cret's")
    line = plan_job(RECIPE, [], tmp_path, None, ["WANDB_API_KEY"], head=False).command_line("http://h:1")
    shown = subprocess.run(["bash", "-c", f'ray() {{ printf %s "${{10}}"; }}; {line}'], capture_output=True, check=True)
    assert json.loads(shown.stdout)["env_vars"]["WANDB_API_KEY"] == "s3cret's"


def test_a_recipe_outside_and_a_wrong_one_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "recipe.yaml"
    outside.write_text(RECIPE.read_text())
    with pytest.raises(UsageError, match="lies outside"):
        plan_job(outside, [], tmp_path, None, [], head=False)
    with pytest.raises(UsageError, match="did you mean"):
        plan_job(RECIPE, ["training.num_update=3"], tmp_path, None, [], head=False)


def test_without_a_ray_it_says_what_to_set() -> None:
    with pytest.raises(RunUnreachable, match="RAY_AUTH_TOKEN"):
        connect("http://127.0.0.1:9")


class Jobs:
    """A client whose job goes through scripted states; an error among them is raised once."""

    def __init__(self, states: list[str | Exception], exit_code: int | None) -> None:
        self.states = states
        self.exit_code = exit_code

    def get_job_info(self, _: str) -> Any:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        message = f"it is {state.lower()}"
        return SimpleNamespace(status=SimpleNamespace(value=state), driver_exit_code=self.exit_code, message=message)

    def get_job_logs(self, _: str) -> str:
        return "" if self.states == ["FAILED"] and self.exit_code is None else "a line\n" * (3 - len(self.states))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayzero.services.cli.submit.POLL_S", 0.0)


@pytest.mark.parametrize(
    ("state", "driver", "expected"), [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", -9, 1), ("STOPPED", None, 130)]
)
def test_waiting_ends_as_the_job_does(
    state: str, driver: int | None, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert follow(Jobs(["RUNNING", state], driver), "j") == expected
    assert capsys.readouterr().out == "a line\n" * 2


def test_a_job_that_never_began_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow(Jobs(["FAILED"], None), "j") == 1
    assert "FAILED: it is failed" in capsys.readouterr().err


def test_a_head_that_is_busy_or_restarts_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert follow(Jobs([RuntimeError("500"), ConnectionError("refused"), "SUCCEEDED"], 0), "j", quiet=True) == 0
    monkeypatch.setattr("rayzero.services.cli.submit.LOST_S", 0.0)
    with pytest.raises(RunUnreachable, match=r"refused.*j goes on"):
        follow(Jobs([ConnectionError("refused")], None), "j")


def test_waiting_has_an_end() -> None:
    with pytest.raises(DeadlineError, match="still PENDING"):
        follow(Jobs(["PENDING"], None), "j", quiet=True, deadline_s=0.01)


def test_run_directories_are_never_uploaded_whatever_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "mini" / "checkpoints").mkdir(parents=True)
    (tmp_path / "out" / "mini" / "run.lock").touch()
    assert run_directories(tmp_path, Path("elsewhere")) == ["elsewhere", "out/mini"]
    assert run_directories(tmp_path, Path("/shared/runs")) == ["out/mini"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Request failed with status code 413: Maximum request body size 104857600 exceeded..", "big.bin (2 MiB)"),
        ("\n.", "a job called mini-1 is there already; give another --name"),
        ("Job with submission_id mini-1 already exists", "give another --name"),
        ("no such resource", "no such resource"),
    ],
)
def test_a_refusal_says_what_to_do(tmp_path: Path, said: str, shown: str) -> None:
    (tmp_path / "big.bin").write_bytes(bytes(2**21))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "bigger.bin").write_bytes(bytes(2**22))
    job = Job(
        submission_id="mini-1",
        entrypoint="",
        runtime_env={"working_dir": str(tmp_path), "excludes": ["runs"]},
        entrypoint_resources={},
    )
    why = _why_refused(RuntimeError(said), job)
    assert shown in why and "bigger" not in why


class Begun(Jobs):
    """Says what it is given."""

    def __init__(self, states: list[str | Exception], exit_code: int | None, said: str) -> None:
        super().__init__(states, exit_code)
        self.said = said

    def get_job_logs(self, _: str) -> str:
        return "" if len(self.states) > 2 else self.said


def test_without_waiting_it_is_said_that_the_job_has_begun(capsys: pytest.CaptureFixture[str]) -> None:
    assert begin(Begun(["PENDING", RuntimeError("503"), "RUNNING"], None, "run directory: x\n"), "j") == 0
    assert "it has begun (running)" in capsys.readouterr().err


def test_a_job_whose_python_has_no_rayzero_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    said = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'typer'\n"
    assert begin(Begun(["PENDING", "RUNNING", "FAILED"], 1, said), "j") == 1
    shown = capsys.readouterr().err
    assert "No module named 'typer'" in shown and "Activate that environment before `ray start`" in shown
    assert follow(Begun(["RUNNING", "FAILED"], 1, said), "j") == 1
    assert "is not the one that has rayzero" in capsys.readouterr().err


def test_a_job_that_waits_for_room_is_not_waited_for_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert begin(Begun(["PENDING"], None, ""), "j", deadline_s=0.01) == 0
    assert "has not begun within 0.01 s" in capsys.readouterr().err
