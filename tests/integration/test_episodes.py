"""Episodes for real: Ray, vLLM's sessions, environment workers, nested trees in the learner; killed in the middle."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from rayzero.services.chaos.agent import ENGINE_NAME
from rayzero.services.observe.figures import UPDATE_FIGURES, undeclared
from rayzero.services.schema.episodes import EpisodeEnd
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.ledger import audit
from rayzero.services.store.rollout_file import read_groups

RECIPE = "deploy/recipes/guess_number.yaml"
AGENT = "examples/number_agent.yaml"
SMALL = (
    "cold_start.num_updates=20",
    "cold_start.source.arguments.num_prompts=960",
    "training.num_updates=2",
    "training.groups_per_update=4",
    "training.group_size=4",
    "evaluation.every_updates=0",
    "evaluation.num_prompts=8",
    "evaluation.greedy=never",
    "checkpoint.every_updates=1",
    "rollout.max_num_seqs=64",
    "rollout.kv_cache_bytes=33554432",
    "observe.api.port=0",
)
START_S = 600.0

pytestmark = pytest.mark.timeout(1500)
STARTED: list[subprocess.Popen[bytes]] = []


@pytest.fixture(scope="module", autouse=True)
def _end_what_is_left() -> Iterator[None]:
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.wait()


def start(run_dir: Path, *changes: str, recipe: str = RECIPE) -> subprocess.Popen[bytes]:
    """`rayzero train`, on its way."""
    command = [sys.executable, "-m", "rayzero", "train", recipe, *SMALL, *changes, "--run-dir", str(run_dir)]
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    with open(run_dir.parent / f"{run_dir.name}.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    STARTED.append(process)
    return process


def finish(run_dir: Path, *changes: str, recipe: str = RECIPE) -> Path:
    """A run, to its end."""
    code = start(run_dir, *changes, recipe=recipe).wait(timeout=1200)
    assert code == 0, (run_dir.parent / f"{run_dir.name}.log").read_text(encoding="utf-8")
    return run_dir


def rayzero(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Another command, on what a run left."""
    return subprocess.run(
        [sys.executable, "-m", "rayzero", *arguments], capture_output=True, text=True, timeout=600, check=False
    )


def reach(run_dir: Path, update: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until an update is made."""
    give_up = time.monotonic() + START_S
    while len(read_lines(run_dir / "metrics.jsonl")) < update:
        assert process.poll() is None, (run_dir.parent / f"{run_dir.name}.log").read_text(encoding="utf-8")
        assert time.monotonic() < give_up, f"update {update} was not reached in {START_S:g} s"
        time.sleep(0.1)


def figures(run_dir: Path) -> list[dict[str, Any]]:
    """What updates came to, without their times."""
    names = ("update", "loss", "grad_norm", "reward_mean", "entropy", "completion_tokens", "kl_rollout")
    return [{name: row[name] for name in names} for row in read_lines(run_dir / "metrics.jsonl")]


def tokens(run_dir: Path) -> list[tuple[bytes, bytes]]:
    """All that was sampled, and observed, and how likely it was: bit for bit."""
    files = sorted((run_dir / "rollouts").glob("update_*.jsonl"))
    groups = [group for file in files for group in read_groups(file)]
    completions = [rollout.completion for group in groups for rollout in group.rollouts]
    return [(each.token_ids.tobytes(), each.rollout_logprobs.tobytes()) for each in completions]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates."""
    return finish(tmp_path_factory.mktemp("episodes") / "run")


def test_a_model_is_trained_on_what_it_played(played: Path) -> None:
    assert audit(played).problems == ()
    rows = read_lines(played / "metrics.jsonl")
    assert [row["update"] for row in rows] == [1, 2] and not undeclared(rows[-1], UPDATE_FIGURES)
    assert rows[-1]["episode_turns_mean"] > 1 and rows[-1]["episode_forks_mean"] == 0
    groups = read_groups(played / "rollouts" / "update_000001.jsonl")
    episodes = [rollout.completion for group in groups for rollout in group.rollouts]
    assert {episode.end for episode in episodes} <= {EpisodeEnd.ANSWERED, EpisodeEnd.MAX_TURNS, EpisodeEnd.MAX_TOKENS}
    for episode in episodes:
        assert episode.outcome is not None and episode.outcome.reward is not None
        assert len(episode.turns) == sum(message.role == "assistant" for message in episode.outcome.messages)
        sampled = np.zeros(episode.num_tokens, dtype=bool)
        for turn in episode.turns:
            sampled[turn.start : turn.end] = True
        observed = np.zeros(0, bool) if episode.is_sampled is None else ~episode.is_sampled
        assert (sampled == (True if episode.is_sampled is None else episode.is_sampled)).all()
        assert np.isnan(episode.rollout_logprobs[: len(observed)][observed]).all()
        assert np.isfinite(episode.rollout_logprobs[sampled]).all()


@pytest.mark.long
def test_its_figures_come_out_the_same_again(played: Path) -> None:
    again = rayzero("replay", str(played))
    assert again.returncode == 0, again.stdout + again.stderr
    judged = rayzero("regrade", str(played))
    assert judged.returncode == 0, judged.stdout + judged.stderr
    shown = rayzero("samples", str(played))
    assert "assistant:" in shown.stdout and ("answered" in shown.stdout or "max_turns" in shown.stdout)


def test_an_agent_with_openais_sdk_is_trained_on_the_same_tokens(played: Path, tmp_path: Path) -> None:
    """The example plays the environment's game over HTTP: the same seeds give the same tokens, log-probabilities and
    losses, bit for bit."""
    run_dir = finish(tmp_path / "agent", recipe=AGENT)
    assert tokens(run_dir) == tokens(played) and figures(run_dir) == figures(played)
    assert audit(run_dir).problems == ()
    for command in ("replay", "regrade"):
        done = rayzero(command, str(run_dir))
        assert done.returncode == 0, done.stdout + done.stderr
    shown = rayzero("samples", str(run_dir))
    assert "assistant:" in shown.stdout and ("answered" in shown.stdout or "max_tokens" in shown.stdout)


@pytest.mark.long
def test_an_agent_that_is_a_program_is_trained_on_the_same_tokens(played: Path, tmp_path: Path) -> None:
    program = f"environment.command=[{sys.executable}, examples/number_agent.py]"
    run_dir = finish(tmp_path / "program", "environment.function=null", program, recipe=AGENT)
    assert tokens(run_dir) == tokens(played) and figures(run_dir) == figures(played)
    assert audit(run_dir).problems == ()


@pytest.mark.long
def test_hostile_agents_cost_their_own_episodes_alone(tmp_path: Path) -> None:
    changes = (
        "environment.function=tests.agents:mostly_hostile",
        "environment.memory_bytes=268435456",
        "environment.limits.step_s=8",
        "environment.limits.start_s=20",
        "training.max_staleness=1",
    )
    run_dir = finish(tmp_path / "hostile", *changes, recipe=AGENT)
    assert audit(run_dir).problems == () and len(read_lines(run_dir / "metrics.jsonl")) == 2
    groups = [group for file in (run_dir / "rollouts").glob("update_*.jsonl") for group in read_groups(file)]
    verdicts = [rollout.verdict for group in groups for rollout in group.rollouts]
    assert {verdict.is_error for verdict in verdicts} == {True, False}


@pytest.mark.long
def test_a_strict_run_repeats_bit_for_bit_also_after_a_kill(played: Path, tmp_path: Path) -> None:
    second = finish(tmp_path / "second", "environment.num_workers=2")
    assert tokens(second) == tokens(played) and figures(second) == figures(played)
    third = tmp_path / "third"
    process = start(third)
    reach(third, 1, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finish(third)
    assert tokens(third) == tokens(played) and figures(third) == figures(played)
    assert audit(third).problems == ()


@pytest.mark.long
def test_agents_lose_their_workers_processes_and_engines_and_no_group_is_lost(tmp_path: Path) -> None:
    """Killed in the middle of agents' episodes: environment workers, the processes that agents run in, rollout workers
    and the engines below them. Every group is trained once."""
    run_dir, updates = tmp_path / "run", 16
    changes = (
        f"training.num_updates={updates}", "training.max_staleness=1", "environment.num_workers=2",
        "rollout.num_workers=2", "rollout.max_num_seqs=32", "evaluation.num_prompts=0",
    )  # fmt: skip
    process = start(run_dir, *changes, recipe=AGENT)
    reach(run_dir, 1, process)
    killed: list[str] = []
    kinds = ("environment", "episode", "engine", "rollout")
    while process.poll() is None and len(killed) < 2 * len(kinds):
        kind = kinds[len(killed) % len(kinds)]
        before = len(read_lines(run_dir / "metrics.jsonl"))
        if victims := victims_of(process, kind):
            try:
                victims[len(killed) % len(victims)].kill()
            except psutil.NoSuchProcess:  # it has ended meanwhile
                continue
            killed.append(kind)
            give_up = time.monotonic() + START_S
            while process.poll() is None and len(read_lines(run_dir / "metrics.jsonl")) == before:
                assert time.monotonic() < give_up, f"no update after a kill of {kind}"
                time.sleep(0.2)
        time.sleep(0.5)
    assert process.wait(timeout=1200) == 0, (tmp_path / "run.log").read_text(encoding="utf-8")
    assert set(kinds) <= set(killed) and audit(run_dir).problems == ()
    rows = read_lines(run_dir / "metrics.jsonl")
    assert [row["update"] for row in rows] == list(range(1, updates + 1))
    groups = [group for file in (run_dir / "rollouts").glob("update_*.jsonl") for group in read_groups(file)]
    assert len({group.group_id for group in groups}) == len(groups) == 4 * updates, "none lost, none doubled"
    for group in groups:
        assert len(group.rollouts) == 4
        for rollout in group.rollouts:
            assert rollout.verdict.is_error or rollout.completion.turns


def victims_of(process: subprocess.Popen[bytes], kind: str) -> list[psutil.Process]:
    """Processes of a run of that kind, of those that live."""
    below = {each: _title(each) for each in _below(psutil.Process(process.pid))}
    actors = [each for each, title in below.items() if "EnvironmentActor" in title]
    if kind == "environment":
        return actors
    if kind == "episode":
        return [child for actor in actors for child in _below(actor) if not _below(child)]
    if kind == "engine":
        return [each for each, title in below.items() if title.startswith(ENGINE_NAME)]
    return [each for each, title in below.items() if "RolloutActor" in title]


def _below(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return list(process.children(recursive=True))
    return []


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()) or str(process.name())
    return ""


@pytest.mark.long
def test_environment_workers_and_episodes_are_killed_and_no_group_is_lost(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    changes = ("training.num_updates=20", "training.max_staleness=1", "environment.num_workers=2")
    process = start(run_dir, *changes)
    reach(run_dir, 1, process)
    killed = 0
    while process.poll() is None and killed < 8:
        actors = [each for each in psutil.Process(process.pid).children(recursive=True) if "Environment" in each.name()]
        victims = actors if killed % 2 else [child for actor in actors for child in actor.children(recursive=True)]
        if victims:
            victims[killed % len(victims)].kill()
            killed += 1
        time.sleep(1.0)
    assert process.wait(timeout=900) == 0, (tmp_path / "run.log").read_text(encoding="utf-8")
    assert killed and audit(run_dir).problems == ()
    assert len(read_lines(run_dir / "metrics.jsonl")) == 20
