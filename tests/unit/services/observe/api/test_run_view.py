"""How a run names itself to Prometheus, and how it ends before its eyes."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from rayzero.services.loop.run_control import RunControl
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import make_recipe
from tests.unit.services.observe.api.kit import Watched


def label_of(path: Path) -> str:
    directory = RunDirectory(path)
    directory.prepare(make_recipe())
    directory.release()
    return directory.label


def test_a_label_names_one_run_directory(tmp_path: Path) -> None:
    first = label_of(tmp_path / "a" / "demo")
    assert first.startswith("demo-") and label_of(tmp_path / "a" / "demo") == first, "a resumed run keeps its name"
    elsewhere = label_of(tmp_path / "b" / "demo")
    shutil.rmtree(tmp_path / "a" / "demo")
    assert len({first, elsewhere, label_of(tmp_path / "a" / "demo")}) == 3


async def test_every_target_has_the_directorys_label(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.start()
    watched.directory.file("label").write_text("run-0a1b2c\n")
    assert {target["labels"]["run"] for target in watched.view.targets("h:1")} == {"run-0a1b2c"}
    status = watched.view.status()
    assert status["run"] == "fake" and status["label"] == "run-0a1b2c"


async def test_a_run_that_nothing_scrapes_ends_at_once(tmp_path: Path) -> None:
    view = Watched(tmp_path).view
    view.meters.exposition(None)  # a user's curl
    began = time.monotonic()
    await view.say_goodbye()
    assert time.monotonic() - began < 2


async def test_a_run_that_is_scraped_waits_until_its_end_was_seen(tmp_path: Path) -> None:
    view = Watched(tmp_path).view
    for _ in range(2):
        assert b"rayzero_run_ended 0.0" in view.meters.exposition(None)
        await asyncio.sleep(0.3)
    leaving = asyncio.create_task(view.say_goodbye())
    await asyncio.sleep(0.15)
    assert not leaving.done()
    assert b"rayzero_run_ended 1.0" in view.meters.exposition(None)
    await asyncio.wait_for(leaving, 0.5)


async def test_a_prometheus_that_went_away_is_not_waited_for_long(tmp_path: Path) -> None:
    view = Watched(tmp_path).view
    for _ in range(2):
        view.meters.exposition(None)
        await asyncio.sleep(0.05)
    await asyncio.wait_for(view.say_goodbye(), 1.0)


async def test_a_run_that_goes_on_says_from_where(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.go()
    version = watched.run.controller.buffer.version
    assert version > 0
    watched.view.attach(RunControl(watched.run.controller), continued=True)
    events = read_lines(watched.directory.file("events.jsonl"))
    assert [event["event"] for event in events] == ["ready", "continued", "ready"]
    assert events[1]["from_update"] == version == watched.view.status()["events"][-2]["from_update"]
