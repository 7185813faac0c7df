"""The script of the first hour on a GPU: its small form end to end on CPUs, and what its driver promises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.hour.context import Context, NotHere, StepFailed
from tests.gpu.hour.processes import marked
from tests.gpu.hour.report import Report
from tests.gpu.hour.runner import Runner
from tests.gpu.hour.steps import LEAST_DEADLINE_S, Device, Figure, Program, Step

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests/gpu/first_hour.sh"
ON_CPU = {"device", "engine", "loop", "kill", "bench"}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_small_form_ends_well_on_cpus(tmp_path: Path) -> None:
    command = [str(SCRIPT), "--device", "cpu", "--budget", "1700", "--out", str(tmp_path / "out")]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1780, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "first_hour.json").read_text())
    rows = {row["name"]: row for row in report["steps"]}
    assert {name for name, row in rows.items() if row["state"] == "ok"} == ON_CPU
    assert all(row["state"] == "skipped" and "CUDA" in row["reason"] for row in rows.values() if row["state"] != "ok")
    assert rows["engine"]["figures"]["gap"] < 1e-4 and rows["engine"]["figures"]["tokens_per_s"] > 0
    assert rows["loop"]["figures"]["updates"] == 5 and 0 <= rows["loop"]["figures"]["kl"] < 1e-4
    assert rows["loop"]["figures"]["pause_s"] < rows["loop"]["figures"]["sync_s"]
    assert rows["kill"]["figures"]["replaced"] == 1 and rows["kill"]["figures"]["problems"] == 0
    assert 0 < rows["bench"]["figures"]["pipeline"] <= 1
    assert (tmp_path / "out" / "loop" / "run" / "metrics.jsonl").is_file(), "small files of a run are kept"
    assert not [row["figures"] for row in rows.values() if "processes_left_behind" in row["figures"]]
    table = (tmp_path / "out" / "first_hour.md").read_text()
    assert "| loop | ok |" in table and "| fp8 | skipped |" in table


def test_step_that_hangs_is_ended_with_its_children_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LEAST_DEADLINE_S, "cpu", 0.0)
    steps = [step("hangs", seconds=3.2), step("fails"), step("dies"), step("lacks"), step("works")]
    report, scratch = report_of(tmp_path, steps), tmp_path / "scratch"
    Runner(report, scratch, budget_s=600.0).run(steps)
    states = {row.name: (row.state, row.reason) for row in report.rows.values()}
    assert states["hangs"] == ("timed out", "it was not done in 8 s, and was ended")
    assert states["fails"] == ("failed", "nothing held")
    assert states["dies"] == ("failed", "its process ended with exit code 3: last words")
    assert states["lacks"] == ("skipped", "a piano is not here")
    assert states["works"] == ("ok", "")
    assert report.rows["hangs"].figures == {"half": 1}, "what a step had found out before is kept"
    assert marked(f"{scratch}/hangs") == [], "its child had a session of its own"
    assert not report.is_good(steps)


def test_steps_that_would_pass_the_budget_are_left_out_by_name(tmp_path: Path) -> None:
    steps = [step("works", seconds=1000), step("works-too", work="works")]
    report = report_of(tmp_path, steps)
    Runner(report, tmp_path / "scratch", budget_s=500.0).run(steps)
    assert report.rows["works"].state == "left out"
    assert report.rows["works"].reason.startswith("its 1000 s would pass the budget")
    assert report.rows["works-too"].state == "ok"
    assert report.is_good(steps), "what was left out did not fail"
    again = Report(tmp_path / "out", report.program, "cpu", "Python", go_on=True)
    assert list(again.rows) == ["works", "works-too"], "a later run with --from keeps what there was"


def test_a_missed_target_is_shown_beside_the_figure_with_a_profile(tmp_path: Path) -> None:
    figure = Figure(key="rate", what="rate", unit="tokens/s", at_least=100)
    steps = [
        step("works", figures=(figure,), profile=f"{__name__}:profiles", beside="both"),
        step("works-too", work="works", beside="both"),
    ]
    report = report_of(tmp_path, steps, device="cuda")
    Runner(report, tmp_path / "scratch", budget_s=600.0).run(steps)
    row = report.rows["works"]
    assert (row.state, row.missed, row.profile) == ("ok", ["rate"], "works/profile/profile.txt")
    assert (tmp_path / "out" / row.profile).read_text() == "slow kernels"
    assert "| rate | 42 tokens/s | ≥ 100 tokens/s **missed** |" in report.markdown.read_text()
    assert report.is_good(steps)


def test_interrupt_ends_the_step_and_leaves_the_tables(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import interrupted; interrupted({str(tmp_path)!r})"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "hangs" / "result.json").is_file():
        assert program.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    assert program.wait(timeout=60) == 1
    rows = json.loads((tmp_path / "out" / "test.json").read_text())["steps"]
    assert [(row["name"], row["state"]) for row in rows] == [("works", "ok"), ("hangs", "interrupted")]
    assert marked(f"{tmp_path}/scratch/hangs") == []


def test_two_gpus_are_asked_for_in_a_sentence(tmp_path: Path) -> None:
    script = ROOT / "tests/gpu/two_gpus.sh"
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    environment = os.environ | {"PYTHON": sys.executable, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([str(script)], capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.strip() == "two_gpus.sh: needs two GPUs, and nvidia-smi lists 1 here: nothing was run"


def step(name: str, *, work: str = "", seconds: float = 20.0, **fields: Any) -> Step:
    function = f"{__name__}:{work or name}"
    return Step(name=name, what=name, work=function, cuda_s=seconds, cpu_s=seconds, **fields)


def report_of(folder: Path, steps: list[Step], device: Device = "cpu") -> Report:
    program = Program(name="test", title="A test", num_gpus=1, steps=steps)
    return Report(folder / "out", program, device, "Python", go_on=False)


def interrupted(folder: str) -> None:
    steps = [step("works"), step("hangs", seconds=500)]
    try:
        Runner(report_of(Path(folder), steps), Path(folder) / "scratch", budget_s=600.0).run(steps)
    except KeyboardInterrupt:
        sys.exit(1)


def works(context: Context) -> None:
    context.note(rate=42)


def hangs(context: Context) -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    context.note(half=1)
    time.sleep(600)


def fails(_: Context) -> None:
    raise StepFailed("nothing held")


def dies(_: Context) -> None:
    print("last words", flush=True)
    os._exit(3)


def lacks(_: Context) -> None:
    raise NotHere("a piano is not here")


def profiles(context: Context) -> None:
    (context.folder / "profile.txt").write_text("slow kernels")
