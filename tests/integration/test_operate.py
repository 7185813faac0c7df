"""A real run, watched and controlled from outside: commands, a real Prometheus, a real browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.json_lines import read_lines
from services.monitoring.dashboard_panels import DASHBOARDS
from tests.browser import open_page, screenshot
from tests.grafana_preview import preview
from tests.prometheus import ALERTS, Prometheus, prometheus
from tests.system import needs

TRAIN = [
    *("train", "deploy/recipes/tiny_addition.yaml", "name=operated"),
    "cold_start.num_updates=60",
    "cold_start.source.arguments.num_prompts=2000",
    "training.num_updates=100000",
    "training.groups_per_update=4",
    "training.group_size=4",
    "training.max_staleness=1",
    "evaluation.every_updates=10",
    "evaluation.num_prompts=8",
    "checkpoint.every_updates=10",
    "rollout.max_num_seqs=32",
]
MAY_BE_EMPTY = {"rayzero_kl_reference_nats"}
"""Families that this run has no figures of: its learner.kl.beta is 0."""

pytestmark = [needs("prometheus", "promtool", "chromium", "playwright"), pytest.mark.timeout(600)]


class Live:
    """A run in a process of its own, and the commands that ask it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        command = [sys.executable, "-m", "services.cli", *TRAIN, "--run-dir", str(directory)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    @property
    def url(self) -> str:
        return str(json.loads((self.directory / "api.json").read_text())["url"])

    def rayzero(self, *arguments: str, exit_code: int = 0) -> str:
        command = [sys.executable, "-m", "services.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == exit_code, done.stdout + done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.rayzero("status", str(self.directory), "--json"))
        return found

    def wait_for_update(self, update: int, deadline_s: float = 240.0) -> None:
        deadline = time.monotonic() + deadline_s
        while not (rows := read_lines(self.directory / "metrics.jsonl")) or rows[-1]["update"] < update:
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, f"update {update} was not reached"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    run = Live(tmp_path_factory.mktemp("operate") / "operated")
    try:
        run.wait_for_update(2)
        yield run
    finally:
        if run.process.poll() is None:
            run.process.terminate()
            try:
                run.process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(run.process.pid, 9)
                run.process.communicate()
        if run.process.stdout is not None:
            run.process.stdout.close()  # one left open fails the whole session at its end


@pytest.fixture(scope="module")
def scraping(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus"), live.url) as server:
        yield server


def test_the_status_is_that_of_the_run(live: Live) -> None:
    status = live.status()
    assert status["run"] == "operated" and status["update"] >= 2 and not status["paused"]
    assert {worker["worker"]: worker["state"] for worker in status["workers"]} == {
        "rollout-0": "serving",
        "reward-0": "serving",
    }
    assert "of 100000" in live.rayzero("status", str(live.directory))


def test_prometheus_finds_nothing_wrong_with_the_metrics(live: Live) -> None:
    with urllib.request.urlopen(f"{live.url}/metrics", timeout=20) as response:
        text = response.read().decode()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workers_join_and_leave_and_prometheus_follows(live: Live, scraping: Prometheus) -> None:
    scraping.wait_for_targets({"controller", "rollout-0"})
    live.rayzero("scale", "rollout=2", "reward=2", "--wait", "150", "--run", str(live.directory))
    scraping.wait_for_targets({"controller", "rollout-0", "rollout-1"})
    assert scraping.wait_for('vllm:generation_tokens_total{instance="rollout-1"} > 0')
    before = live.status()["update"]
    live.rayzero("scale", "rollout=1", "--wait", "60", "--run", str(live.directory))
    states = {worker["worker"]: worker["state"] for worker in live.status()["workers"] if worker["role"] == "rollout"}
    assert list(states.values()) == ["serving"]
    scraping.wait_for_targets({"controller", *states})
    live.wait_for_update(before + 3)


def test_every_panel_and_alert_has_an_answer(live: Live, scraping: Prometheus) -> None:
    scraping.wait_for("sum(rate(rayzero_updates_total[1m])) > 0")
    scraping.wait_for("rayzero_last_checkpoint_timestamp_seconds > 0")
    empty = []
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for expression, _ in panel.targets:
                found = scraping.query(expression.replace("$__rate_interval", "1m").replace("$run", "operated"))
                if not found and not panel.needs and not any(name in expression for name in MAY_BE_EMPTY):
                    empty.append(f"{dashboard.title} / {panel.title}: {expression}")
    assert empty == []
    for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]:
        scraping.query(rule["expr"])
    firing = {
        found["metric"]["alertname"] for found in scraping.query('ALERTS{alertstate="firing",severity="critical"}')
    }
    assert firing == set()


def test_the_page_shows_the_live_run(live: Live, tmp_path: Path) -> None:
    with open_page(live.url) as (page, complaints):
        page.wait_for_selector("#curves polyline", state="attached")  # a flat line counts as hidden
        page.wait_for_selector("#group .token")
        assert re.search(r"\d+ of 100000", page.text_content("#glance") or "")
        assert page.locator("#workers tr").count() >= 3
        page.locator("#group .token").nth(2).hover()
        assert "log-probability" in (page.text_content("#tip") or "")
        page.mouse.move(5, 5)
        page.select_option("select[name=kind]", "evaluation")
        page.locator("#groups .where", has_text=re.compile(r"^evaluation")).first.wait_for()
        page.locator("#groups button").first.click()
        page.wait_for_selector("#compare")
        page.click("#compare")
        page.wait_for_selector(".sides .card")
        page.select_option("select[name=kind]", "train")
        page.select_option("select[name=sort]", "spread")
        page.locator("#groups .where", has_text=re.compile(r"^update")).first.wait_for()
        page.locator("#groups button").first.click()
        page.wait_for_selector("#group .cards .token")
        screenshot(page, "page.png", tmp_path)
        assert complaints == []


def test_the_dashboards_can_be_looked_at(live: Live, scraping: Prometheus, tmp_path: Path) -> None:
    for dashboard in DASHBOARDS:
        file = tmp_path / f"{dashboard.uid}.html"
        file.write_text(preview(dashboard, scraping, run="operated"), encoding="utf-8")
        with open_page(file.as_uri()) as (page, complaints):
            assert page.locator("svg polyline, .figure").count() > len(dashboard.panels) / 2
            screenshot(page, f"{dashboard.uid}.png", tmp_path, full_page=True)
            assert complaints == []


def test_finally_it_pauses_goes_on_saves_and_ends(live: Live) -> None:
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
    assert json.loads(live.rayzero("stop", run, "--wait", "90", "--json"))["ended"]
    assert live.process.wait(timeout=60) == 130
    live.rayzero("status", run, exit_code=3)
    events = [event["event"] for event in read_lines(live.directory / "events.jsonl") if event["event"] != "warning"]
    assert events == ["ready", "scale", "scale", "pause", "resume", "checkpoint", "stop"]
    judged = json.loads(live.rayzero("regrade", run, "--files", "2", "--json"))
    assert judged["rollouts"] >= 16 and judged["flips"] == []
