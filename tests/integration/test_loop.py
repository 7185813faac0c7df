"""The real loop on the tiny model: Ray, vLLM, gloo sync, rewards, learner; killed in the middle and continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayzero.services.observe.figures import EVALUATION_FIGURES, UPDATE_FIGURES, undeclared
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.ledger import audit

RECIPE = "deploy/recipes/tiny_addition.yaml"
SMALL = [
    "model.dtype=float32",
    "cold_start.num_updates=5",
    # So short a start answers nothing rightly; lengths differ from the first update on, and weights move.
    "reward.rubrics.default.length={kind: overlong, max_tokens: 48, margin_tokens: 48}",
    "cold_start.source.arguments.num_prompts=2000",
    "training.num_updates=6",
    "training.groups_per_update=4",
    "training.group_size=4",
    "evaluation.every_updates=3",
    "evaluation.num_prompts=16",
    "checkpoint.every_updates=2",
    "training.max_staleness=0",
    "rollout.max_num_seqs=64",
]
START_S = 600.0

pytestmark = pytest.mark.timeout(1500)


def command(run_dir: Path, *changes: str) -> list[str]:
    return [sys.executable, "-m", "rayzero", "train", RECIPE, *SMALL, *changes, "--run-dir", str(run_dir)]


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(scope="module", autouse=True)
def end_what_is_left() -> Iterator[None]:
    """A test that failed before it ended its run leaves none behind for the next one."""
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.communicate()


def start(run_dir: Path, *changes: str, temporary: str | None = None) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command(run_dir, *changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=marked(run_dir) | ({} if temporary is None else {"TMPDIR": temporary}),
    )
    STARTED.append(process)
    return process


def marked(run_dir: Path) -> dict[str, str]:
    """An environment that every process of the run inherits, Ray's and the engine's too, and can be found by."""
    return {**os.environ, "RAYZERO_TEST_RUN": str(run_dir)}


def wait_for_update(run_dir: Path, update: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_S
    while len(read_lines(run_dir / "metrics.jsonl")) < update:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"update {update} was not reached in {START_S} s"
        time.sleep(0.2)


def processes_of(marker: str) -> list[str]:
    """Living processes with `marker` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if (
                marker.encode() in (entry / "environ").read_bytes()
                and (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
            ):
                found.append(f"{entry.name}: {(entry / 'cmdline').read_bytes()[:150]!r}")
        except OSError:
            continue
    return found


def assert_nothing_is_left(marker: str) -> None:
    deadline = time.monotonic() + 120
    while (left := processes_of(marker)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed with SIGKILL after its third update, and continued by the same command."""
    run_dir = tmp_path_factory.mktemp("loop") / "run"
    process = start(run_dir)
    wait_for_update(run_dir, 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert_nothing_is_left(str(run_dir))
    again = subprocess.run(
        command(run_dir), capture_output=True, text=True, timeout=900, check=False, env=marked(run_dir)
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "continuing from update_000002" in again.stdout
    return run_dir


@pytest.fixture(scope="module")
def revived(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> Path:
    """The same run, whose learner alone was killed after the third update, between two checkpoints."""
    run_dir = tmp_path_factory.mktemp("revived") / "run"
    process = start(run_dir)
    wait_for_update(run_dir, 3, process)
    os.kill(process_called("ray::LearnerActor", str(run_dir)), signal.SIGKILL)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert "orker died" not in output, "Ray's words on it are in the log"
    assert "the learner is back at version" in (run_dir / "logs" / "driver.log").read_text()
    return run_dir


def process_called(name: str, marker: str) -> int:
    found = [line.split(":")[0] for line in processes_of(marker) if name in line]
    assert len(found) == 1, found
    return int(found[0])


TIMINGS = ("_s", "_per_s")


def test_a_killed_driver_and_a_killed_learner_leave_the_same_run_bit_for_bit(finished: Path, revived: Path) -> None:
    """Two runs, each disturbed in a way of its own, are equal in every figure but the timings and in every weight."""
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        one, other = (
            [{key: value for key, value in row.items() if not key.endswith(TIMINGS)} for row in read_lines(run / name)]
            for run in (finished, revived)
        )
        assert one == other
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (finished, revived)]
    assert weights[0] == weights[1]
    # Where no update moved anything, any two runs would be equal.
    assert all(row["grad_norm"] > 0 for row in read_lines(finished / "metrics.jsonl"))


def test_the_audits_find_nothing_lost_and_nothing_doubled(finished: Path, revived: Path) -> None:
    for run in (finished, revived):
        assert audit(run).problems == ()


def test_every_update_is_there_once_and_in_order(finished: Path) -> None:
    rows = read_lines(finished / "metrics.jsonl")
    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row["staleness_max"] == 0 and row["samples"] == 16 for row in rows)
    evaluations = read_lines(finished / "evaluations.jsonl")
    assert [row["update"] for row in evaluations] == [0, 3, 6]
    assert undeclared(rows[-1], UPDATE_FIGURES) == undeclared(evaluations[-1], EVALUATION_FIGURES) == []


def test_the_ledger_shows_every_group_trained_once(finished: Path) -> None:
    events: dict[int, list[str]] = {}
    for row in read_lines(finished / "ledger.jsonl"):
        events.setdefault(row["group_id"], []).append(row["event"])
    assert sorted(events) == list(range(24))
    assert set(map(tuple, events.values())) == {("admitted", "trained")}


def test_rollouts_were_sampled_from_the_version_they_trained(finished: Path) -> None:
    for update in range(1, 7):
        lines = read_lines(finished / "rollouts" / f"update_{update:06d}.jsonl")
        assert len(lines) == 16
        assert {version for line in lines for _, _, version in line["versions"]} == {update - 1}
        assert all(len(line["token_ids"]) == len(line["rollout_logprobs"]) == line["num_tokens"] for line in lines)


def test_sampler_and_learner_agree_at_every_update(finished: Path) -> None:
    """Both compute in fp32 here: at equal weights the log-probabilities differ by rounding alone."""
    assert max(row["kl_rollout"] for row in read_lines(finished / "metrics.jsonl")) < 1e-6


def test_the_summary_says_what_a_script_needs(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    wanted = "updates seconds samples tokens accuracy_before accuracy_best accuracy_after model"
    assert set(wanted.split()) <= set(summary)
    assert summary["updates"] == 6 and summary["samples"] == 96
    assert (finished / "recipe.yaml").is_file()
    assert {"learner.log", "rollout-0.log", "reward-0.log", "driver.log"} <= {
        path.name for path in (finished / "logs").iterdir()
    }


def test_the_model_loads_as_it_is(finished: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(finished / "model")
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    assert model.num_parameters() > 1_000_000
    assert tokenizer.decode(tokenizer.encode("57+68=")) == "57+68="


def test_interrupting_saves_and_leaves_nothing_behind(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    temporary = tempfile.mkdtemp()  # pytest's own path is too long for a socket in it
    process = start(run_dir, "training.num_updates=500", "cold_start.num_updates=2", temporary=temporary)
    wait_for_update(run_dir, 1, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "the same command goes on from here" in output
    assert list((run_dir / "checkpoints").glob("update_*"))
    assert_nothing_is_left(str(run_dir))
    # torch's own cache, which it makes when it is imported and shares among programs.
    assert [name for name in os.listdir(temporary) if not name.startswith("torchinductor_")] == []
    os.rmdir(temporary)
