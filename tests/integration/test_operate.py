"""A real run as a job on a Ray of several nodes, watched and controlled from outside by the commands, a real Prometheus
and a real browser. The tests follow one run from its submission to its end, in their order."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from rayzero.services.observe.monitoring.dashboard_panels import DASHBOARDS
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.ledger import audit
from rayzero.services.store.run_directory import RunDirectory, write_atomically
from tests.browser import open_page, screenshot
from tests.grafana_preview import preview
from tests.process_life import lives
from tests.prometheus import ALERTS, Prometheus, free_port, prometheus
from tests.ray_nodes import BIN, RayNodes
from tests.system import needs

RECIPE = "deploy/recipes/tiny_addition.yaml"
CHANGES = [
    "name=operated",
    "model.dtype=float32",  # bfloat16 is ten times slower on CPUs that have no instructions for it
    "training.num_updates=100000",
    "training.groups_per_update=2",
    "training.group_size=4",
    "training.max_staleness=1",
    "evaluation.every_updates=10",
    "evaluation.num_prompts=4",
    "checkpoint.every_updates=10",
    "rollout.max_num_seqs=32",
    "reward.rubrics.default.pace={kind: custom, function: 'pace:steady', weight: 0}",
    "cluster.learner_resources.learner=1",
    "cluster.rollout_resources.rollout=1",
    "cluster.reward_resources.reward=1",
]
SHORT_START = [
    "cold_start.num_updates=5",
    "cold_start.source.arguments.num_prompts=1920",
    "reward.rubrics.default.length={kind: overlong, max_tokens: 48, margin_tokens: 48}",
]
"""Nothing is right after it, and lengths are what is learnt; a model that is right makes better pictures."""
MAY_BE_EMPTY = {"rayzero_kl_reference_nats"}
"""Families that this run has no figures of: its learner.kl.beta is 0."""
PACE = """
import time
from pathlib import Path

def steady(prompts, completions, **columns):
    time.sleep(float(Path(__file__).with_name("pace").read_text()))
    return [None] * len(completions)
"""
"""A reward of one's own that takes the time in its file: at full speed the run would leave joining engines no CPU."""
BRISK_S, SLOW_S = 0.5, 2.0
TOKEN, KEY = secrets.token_hex(16), secrets.token_hex(16)
"""Drawn anew: the job's directory, which lies among Ray's files, holds this text."""
START_S = 240.0

pytestmark = [needs("prometheus", "promtool", "chromium", "playwright"), pytest.mark.timeout(500)]


class Live:
    """The run, and the commands that ask it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs, self.directory = folder, folder / "runs", folder / "runs" / "operated"
        self.runs.mkdir()
        self.port = free_port()
        (folder / "pace.py").write_text(PACE)
        self.set_pace(BRISK_S)
        tokens = {"RAYZERO_API_TOKEN": TOKEN, "WANDB_API_KEY": KEY}
        self.nodes = RayNodes(folder / "ray.log", {"PYTHONPATH": str(folder), **tokens})

    def set_pace(self, seconds: float) -> None:
        """Of scoring a group."""
        write_atomically(self.folder / "pace", str(seconds))

    @property
    def changes(self) -> list[str]:
        start = [] if "RAYZERO_SCREENSHOTS" in os.environ else SHORT_START
        return [*CHANGES, *start, f"observe.api.port={self.port}"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def label(self) -> str:
        return RunDirectory(self.directory).label

    def rayzero(self, *arguments: str, exit_code: int = 0) -> str:
        done = self.nodes.run(sys.executable, "-m", "rayzero", *arguments)
        assert done.returncode == exit_code, done.stdout + done.stderr
        return done.stdout + done.stderr * (exit_code != 0)

    def ray_job(self, verb: str, *arguments: str) -> str:
        done = self.nodes.run(str(BIN / "ray"), "job", verb, "--address", self.nodes.dashboard_url, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submission(self, *changes: str) -> list[str]:
        """The command that submits it and shows its log to its end."""
        submit = [sys.executable, "-m", "rayzero", "submit", RECIPE, *self.changes, *changes, "--head", "--wait"]
        return [*submit, "--address", self.nodes.dashboard_url, "--runs", str(self.runs)]

    def get(self, path: str) -> bytes:
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return bytes(response.read())

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/v1/status"))
        return found

    def workers(self, role: str = "rollout", state: str = "serving") -> dict[str, int]:
        """Process ids by name."""
        workers = self.status()["workers"]
        return {one["worker"]: one["pid"] for one in workers if one["role"] == role and one["state"] == state}

    def updates(self) -> int:
        rows = read_lines(self.directory / "metrics.jsonl")
        return int(rows[-1]["update"]) if rows else 0

    def wait_for_update(self, update: int) -> None:
        deadline = time.monotonic() + START_S
        while self.updates() < update:
            if time.monotonic() > deadline or "RUNNING" not in (states := self.nodes.job_states()):
                pytest.fail(f"update {update} was not reached: {states} {self.ray_job('logs', 'operated')[-3000:]}")
            time.sleep(0.3)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Submitted by Ray's own command, to a head and a first node for rollouts."""
    run = Live(tmp_path_factory.mktemp("operate"))
    try:
        run.nodes.start_head(num_cpus=4, resources={"head": 1, "learner": 1, "reward": 4})
        environment = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"}})
        train = ["python", "-m", "rayzero", "train", RECIPE, *run.changes, "cluster.address=auto"]
        run.ray_job(
            *("submit", "--no-wait", "--submission-id", "operated", "--working-dir", "."),
            *("--runtime-env-json", environment, "--", *train, "--runs", str(run.runs)),
        )
        run.nodes.join("a", num_cpus=2, resources={"rollout": 2})
        yield run
    finally:
        run.nodes.close()


@pytest.fixture(scope="module")
def scraping(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus"), live.url, TOKEN) as server:
        yield server


def test_a_job_that_is_refused_says_why_and_exits_as_the_run_would(live: Live) -> None:
    refused = live.nodes.run(*live.submission("name=refused", "model.path=/no/such/model"))
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "/no/such/model" in refused.stdout and TOKEN not in refused.stdout


def test_the_doctor_finds_every_node_well(live: Live) -> None:
    found = json.loads(live.rayzero("doctor", "--address", live.nodes.address, "--runs", str(live.runs), "--json"))
    assert [finding for finding in found if finding["level"] == "fail"] == []
    assert any("2 nodes" in finding["what"] and "learner 1" in finding["what"] for finding in found)


def test_the_status_is_that_of_the_run(live: Live) -> None:
    live.wait_for_update(2)
    status = json.loads(live.rayzero("status", str(live.directory), "--json"))
    assert status["run"] == "operated" and status["update"] >= 2 and not status["paused"]
    assert {worker["worker"]: worker["state"] for worker in status["workers"]} == {
        "rollout-0": "serving",
        "reward-0": "serving",
    }
    assert live.nodes.node_of(live.workers()["rollout-0"]) == "a"
    assert live.nodes.node_of(live.workers("reward")["reward-0"]) == "head"
    assert "of 100000" in live.rayzero("status", str(live.directory))


def test_workers_join_are_lost_and_leave_and_prometheus_follows(live: Live, scraping: Prometheus) -> None:
    run = str(live.directory)
    scraping.wait_for_targets({"controller", "rollout-0"})
    live.set_pace(SLOW_S)
    # An engine that starts beside a node would take the CPU that the node needs within Ray's 30 s.
    live.rayzero("scale", "rollout=2", "reward=2", "--wait", "240", "--run", run)
    live.rayzero("scale", "rollout=3", "--run", run)  # more than there is room for: it waits for its node
    live.nodes.join("b", num_cpus=1, resources={"rollout": 1})
    live.rayzero("scale", "rollout=3", "--wait", "240", "--run", run)
    live.set_pace(BRISK_S)
    workers = live.workers()
    scraping.wait_for_targets({"controller", *workers})
    ((lost, _),) = [worker for worker in workers.items() if live.nodes.node_of(worker[1]) == "b"]
    assert scraping.wait_for(f'vllm:generation_tokens_total{{instance="{lost}"}} > 0')

    live.nodes.kill("b")
    live.nodes.wait_until(lambda: set(live.workers()) == set(workers) - {lost})
    scraping.wait_for_targets({"controller", *workers} - {lost})
    assert scraping.wait_for('rayzero_worker_restarts_total{role="rollout"} > 0')
    live.wait_for_update(live.updates() + 3)

    live.rayzero("scale", "rollout=1", "--wait", "60", "--run", run)
    ((stayed, pid),) = live.workers().items()
    scraping.wait_for_targets({"controller", stayed})
    assert live.nodes.node_of(pid) == "a"
    live.nodes.wait_until(lambda: not any(map(lives, {*workers.values()} - {pid})))
    live.wait_for_update(live.updates() + 2)


def test_every_panel_and_alert_has_an_answer(live: Live, scraping: Prometheus) -> None:
    scraping.wait_for("sum(rate(rayzero_updates_total[1m])) > 0")
    scraping.wait_for("rayzero_last_checkpoint_timestamp_seconds > 0")
    empty = []
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for expression, _ in panel.targets:
                found = scraping.query(expression.replace("$__rate_interval", "1m").replace("$run", live.label))
                if not found and not panel.needs and not any(name in expression for name in MAY_BE_EMPTY):
                    empty.append(f"{dashboard.title} / {panel.title}: {expression}")
    assert empty == []
    for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]:
        scraping.query(rule["expr"])
    firing = {
        found["metric"]["alertname"] for found in scraping.query('ALERTS{alertstate="firing",severity="critical"}')
    }
    assert firing == set()


def test_prometheus_finds_nothing_wrong_with_the_metrics(live: Live) -> None:
    text = live.get("/metrics").decode()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_shows_the_live_run(live: Live, tmp_path: Path) -> None:
    with open_page(live.url) as (page, complaints):
        page.fill("#token input", TOKEN)
        page.click("#token button")
        page.wait_for_selector("#curves polyline", state="attached")  # a flat line counts as hidden
        page.wait_for_selector("#group .token")
        assert re.search(r"\d+ of 100000", page.text_content("#glance") or "")
        assert page.locator("#workers tr").count() >= 3
        page.locator("#group .token").nth(2).hover()
        assert "log-probability" in (page.text_content("#tip") or "")
        page.mouse.move(5, 5)
        page.select_option("select[name=kind]", "evaluation")
        page.wait_for_selector("#groups:not([aria-busy])")
        page.locator("#groups button").first.click()
        page.wait_for_selector("#compare")
        page.click("#compare")
        page.wait_for_selector(".sides .card")
        page.select_option("select[name=kind]", "train")
        page.select_option("select[name=sort]", "spread")
        page.wait_for_selector("#groups:not([aria-busy])")
        page.locator("#groups button").first.click()
        page.locator("#group", has_text="train/").wait_for()
        page.wait_for_selector("#group .cards .token")
        page.keyboard.press("Control+Home")
        screenshot(page, "page.png", tmp_path)
        assert [complaint for complaint in complaints if "401" not in complaint] == []  # until the token was given


def test_the_dashboards_can_be_looked_at(live: Live, scraping: Prometheus, tmp_path: Path) -> None:
    with open_page("about:blank") as (page, complaints):
        for dashboard in DASHBOARDS:
            file = tmp_path / f"{dashboard.uid}.html"
            file.write_text(preview(dashboard, scraping, run=live.label), encoding="utf-8")
            page.goto(file.as_uri())
            assert page.locator("svg polyline, .figure").count() > len(dashboard.panels) / 2
            screenshot(page, f"{dashboard.uid}.png", tmp_path, full_page=True)
        assert complaints == []


def test_it_pauses_goes_on_saves_and_refuses(live: Live) -> None:
    run = str(live.directory)
    live.rayzero("pause", run)
    standing = live.status()
    assert standing["paused"] and standing["queues"]["groups"]["generating"] == 0
    time.sleep(1.0)
    assert live.status()["update"] == standing["update"]
    live.rayzero("resume", run)
    live.wait_for_update(standing["update"] + 1)
    saved = json.loads(live.rayzero("checkpoint", run, "--json"))["version"]
    assert (live.directory / "checkpoints" / f"update_{saved:06d}" / "manifest.json").is_file()
    live.rayzero("drain", "no-such-worker", "--run", run, exit_code=2)
    live.rayzero("scale", "rollout=1000", "--run", run, exit_code=2)


def test_a_stopped_job_saves_leaves_nothing_and_goes_on_when_submitted_again(live: Live, scraping: Prometheus) -> None:
    run, reached = str(live.directory), live.updates()
    actors = [*live.workers().values(), *live.workers("reward").values()]
    engines = [child.pid for pid in actors for child in psutil.Process(pid).children(recursive=True)]
    metrics = live.get("/metrics").decode()
    assert "stopped" in live.ray_job("stop", "operated")
    saved = max((live.directory / "checkpoints").glob("update_*"))
    version = int(saved.name.removeprefix("update_"))
    assert version == live.updates() >= reached
    live.nodes.wait_until(lambda: not any(map(lives, [*actors, *engines])))
    live.rayzero("status", run, exit_code=3)

    with open(live.folder / "again.log", "wb") as log:
        again = subprocess.Popen(live.submission(), stdout=log, stderr=log, env=live.nodes.environment)
    try:
        live.nodes.wait_until(lambda: "RUNNING" in live.nodes.job_states())
        live.wait_for_update(version + 1)
        scraping.wait_for_targets({"controller", "rollout-0"})
        assert json.loads(live.rayzero("stop", run, "--wait", "90", "--json"))["ended"]
        assert again.wait(60) == 130
    finally:
        again.kill()
        again.wait()
    assert f"continuing from {saved.name}" in (live.folder / "again.log").read_text()
    live.set_pace(0)
    judged = json.loads(live.rayzero("regrade", run, "--files", "2", "--json"))
    assert judged["rollouts"] >= 16 and judged["flips"] == []
    assert audit(live.directory).problems == ()
    events = [event["event"] for event in read_lines(live.directory / "events.jsonl") if event["event"] != "warning"]
    assert events == ["ready", *["scale"] * 4, "pause", "resume", "checkpoint", "continued", "ready", "stop"]
    assert_not_written_down(metrics, live)


def assert_not_written_down(metrics: str, live: Live) -> None:
    """Neither the run, nor Ray's logs of every node and job, nor the metrics hold a secret of the environment."""
    files = [path for folder in (live.folder, live.nodes.scratch) for path in folder.rglob("*")]
    texts = {str(file): file.read_bytes() for file in files if file.is_file() and not file.is_symlink()}
    assert any("job-driver" in name for name in texts) and any(name.endswith("rollout-0.log") for name in texts)
    texts["metrics"] = metrics.encode()
    assert [name for name, text in texts.items() if TOKEN.encode() in text or KEY.encode() in text] == []
