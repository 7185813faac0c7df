"""The pictures of the manual: the page of real runs in a real browser, each in the state that its name says.

One run learns, stands still because its reward does, goes on and finishes; another begins with what it has learnt and
loses it by a learning rate that is far too high. With RAYZERO_SCREENSHOTS the pictures go there (docs/images); with
RAYZERO_SCREEN_RUNS the runs are made in that folder, and those that are there and finished are not made again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rayzero.services.cli.compare import compare_runs
from rayzero.services.cli.samples import samples
from rayzero.services.observe.browse.rollout_index import Filter
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory, write_atomically
from tests.browser import open_page, screenshot
from tests.prometheus import free_port
from tests.source_tree import ROOT
from tests.system import needs

if TYPE_CHECKING:
    from playwright.sync_api import Page

RECIPE = "deploy/recipes/tiny_addition.yaml"
TASK = [
    "model.dtype=float32",
    "data.train=[{kind: function, function: 'tests.digits:prompts'}]",
    "data.held_out=[{kind: function, function: 'tests.digits:prompts', arguments: {num_prompts: 32, first: 2000}}]",
    "reward={deadline_s: 100, rubrics: {default: {varied: {kind: custom, function: 'tests.digits:varied',"
    " environment: [RAYZERO_TEST_HALT]}}}}",
    "rollout.sampling.max_tokens=24",
    "rollout.max_num_seqs=64",
    "training.groups_per_update=4",
    "training.max_staleness=0",
    "evaluation={every_updates: 10, num_prompts: 32}",
    "checkpoint.every_updates=10",
    "deadlines={score_s: 110, group_s: 120, update_s: 120, sync_s: 120, stall_s: 120, actor_start_s: 1500}",
]
LEARNS = [
    "name=learns",
    "description=a tiny model learns to write six different digits",
    "cold_start={source: {kind: function, function: 'tests.digits:demonstrations'}, num_updates: 40,"
    " demonstrations_per_update: 16, optimizer: {learning_rate: 2.0e-3, warmup_updates: 4}}",
    "learner.optimizer={learning_rate: 1.0e-3, warmup_updates: 2, decay: linear, floor: 0.1}",
    "training.num_updates=40",
]
COLLAPSES = [
    "name=collapses",
    "description=the same at a learning rate twenty times as high",
    "cold_start=null",
    "learner.optimizer={learning_rate: 2.0e-2, warmup_updates: 12, decay: constant}",
    "learner.watch={kl_stop: 100, ess_warn: 0, ess_stop: 0}",
    "training.num_updates=32",
]
GUISES = (("light", 1200, 900), ("dark", 1200, 900), ("phone", 390, 844))
START_S = 1800.0

pytestmark = [pytest.mark.long, needs("chromium", "playwright"), pytest.mark.timeout(5400)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs are."""
    folder = Path(os.environ.get("RAYZERO_SCREEN_RUNS") or tmp_path_factory.mktemp("screens"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Training:
    """A run as a process of its own."""

    def __init__(self, runs: Path, *changes: str) -> None:
        self.port, self.runs = free_port(), runs
        name = changes[0].removeprefix("name=")
        self.directory, self.log = RunDirectory(runs / name), runs / f"{name}.log"
        command = [sys.executable, "-m", "rayzero", "train", RECIPE, *TASK, *changes, "--runs", str(runs)]
        known = {"PYTHONPATH": str(ROOT), "RAYZERO_TEST_HALT": str(runs / "halt")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*command, f"observe.api.port={self.port}"],
                stdout=log,
                stderr=log,
                env={**os.environ, **known},
                cwd=ROOT,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/v1/status", timeout=60) as response:
            found: dict[str, Any] = json.loads(response.read())
        return found

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not is_so():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.5)

    def updates(self) -> int:
        return len(read_lines(self.directory.file("metrics.jsonl")))

    def finish(self) -> None:
        assert self.process.wait(START_S) == 0, self.log.read_text()[-3000:]

    def end(self) -> None:
        """Whatever it does: it saves, and the same command goes on."""
        self.process.terminate()
        self.process.wait(120)


@pytest.fixture(scope="module")
def learns(runs: Path) -> Iterator[Training | None]:
    """The run that learns, live; None where it was made before."""
    if RunDirectory(runs / "learns").is_finished():
        yield None
        return
    (runs / "halt").unlink(missing_ok=True)
    training = Training(runs, *LEARNS)
    try:
        yield training
    finally:
        training.end()


@pytest.fixture(scope="module")
def finished(runs: Path, learns: Training | None) -> RunDirectory:
    """The same when it has ended."""
    if learns is not None:
        (runs / "halt").unlink(missing_ok=True)
        learns.finish()
    return RunDirectory(runs / "learns")


@pytest.fixture(scope="module")
def collapsed(runs: Path, finished: RunDirectory) -> RunDirectory:
    """The run that loses what it began with."""
    directory = RunDirectory(runs / "collapses")
    if not directory.is_finished():
        training = Training(runs, *COLLAPSES, f"model.path={finished.path / 'model'}")
        try:
            training.finish()
        finally:
            training.end()
    return directory


def picture(page: Page, state: str, otherwise: Path) -> None:
    """The page as it opens, in every guise."""
    for guise, width, height in GUISES:
        page.emulate_media(color_scheme="dark" if guise == "dark" else "light")
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("window.scrollTo(0, 0)")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls down alone"
        screenshot(page, f"page-{state}-{guise}.png", otherwise)
        file = Path(os.environ.get("RAYZERO_SCREENSHOTS") or otherwise) / f"page-{state}-{guise}.png"
        assert file.stat().st_size < 150_000, file


def health(page: Page) -> str:
    page.wait_for_selector("#health .badge")
    return page.inner_text("#health")


def test_a_run_that_learns(learns: Training | None, tmp_path: Path) -> None:
    if learns is None:
        pytest.skip("it was made before")
    learns.wait_until(lambda: learns.updates() >= 18)
    with open_page(learns.url) as (page, complaints):
        page.wait_for_selector("#group .card")
        assert health(page).startswith("green")
        picture(page, "healthy", tmp_path)
        assert complaints == []


def test_a_run_that_stands_still(learns: Training | None, runs: Path, tmp_path: Path) -> None:
    if learns is None:
        pytest.skip("it was made before")
    write_atomically(runs / "halt", "")
    try:
        learns.wait_until(lambda: learns.status()["health"]["level"] == "red")
        with open_page(learns.url) as (page, complaints):
            assert "nothing has moved for" in health(page)
            assert "judged" in page.inner_text("#glance"), "where the groups are, in words"
            page.wait_for_selector("#group .card")
            picture(page, "stalled", tmp_path)
            assert complaints == []
    finally:
        (runs / "halt").unlink()


def export(directory: RunDirectory, file: Path) -> str:
    samples(str(directory.path), directory.path.parent, Filter(), "newest", 20, "html", file, None)
    return file.as_uri()


def test_a_run_that_has_finished(finished: RunDirectory, tmp_path: Path) -> None:
    with open_page(export(finished, tmp_path / "page.html")) as (page, complaints):
        page.wait_for_selector("#group .card")
        assert health(page).startswith("green") and "finished" in page.inner_text("#glance")
        picture(page, "finished", tmp_path)
        assert complaints == []


def test_a_run_that_collapses(collapsed: RunDirectory, tmp_path: Path) -> None:
    with open_page(export(collapsed, tmp_path / "page.html")) as (page, complaints):
        page.wait_for_selector("#group .card")
        assert health(page).startswith("red") and "the reward fell" in health(page)
        page.locator("#health summary").first.click()
        picture(page, "collapsing", tmp_path)
        assert complaints == []


def test_two_runs_compared(finished: RunDirectory, collapsed: RunDirectory, runs: Path, tmp_path: Path) -> None:
    compare_runs([finished.path.name, collapsed.path.name], runs, as_json=False, html=tmp_path / "both.html")
    with open_page((tmp_path / "both.html").as_uri()) as (page, complaints):
        page.wait_for_selector("#curves polyline")
        picture(page, "compared", tmp_path)
        assert complaints == []
