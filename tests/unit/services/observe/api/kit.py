"""A watched run on fakes, and a client that speaks to its API without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from rayzero.services.loop.run_control import RunControl
from rayzero.services.observe.api.app import build_app
from rayzero.services.observe.api.events import EventLog
from rayzero.services.observe.api.guard import Guard
from rayzero.services.observe.api.run_view import RunView
from rayzero.services.observe.browse.rollout_index import RolloutIndex
from rayzero.services.observe.browse.rollout_tokens import TokenTexts
from rayzero.services.observe.monitoring.meters import Meters
from rayzero.services.observe.monitoring.trackers import Tracking
from rayzero.services.observe.recorder import Recorder
from rayzero.services.store.run_directory import RunDirectory
from tests.unit.services.loop.test_controller import Run


class Watched:
    """A run on fakes with its control view."""

    def __init__(self, folder: Path, num_workers: int = 1, **training: Any) -> None:
        self.run = Run(num_workers=num_workers, **training)
        self.directory = RunDirectory(folder / "run")
        for path in (self.directory.rollouts, self.directory.checkpoints):
            path.mkdir(parents=True)
        self.view = RunView(
            recipe=self.run.recipe,
            directory=self.directory,
            meters=Meters(self.run.recipe, self.directory.path, "0"),
            events=EventLog(self.directory.file("events.jsonl")),
            index=RolloutIndex(self.directory.path, cache=folder / "cache"),
            tokens=TokenTexts(self.directory),
            phase=lambda: "training",
            tracking=Tracking([]),
        )
        self.run.controller.observers = [Recorder(self.directory), self.run.watcher, *self.view.observers]

    async def start(self) -> None:
        await self.run.start()
        self.view.attach(RunControl(self.run.controller))

    async def go(self) -> None:
        await self.run.go()
        self.view.attach(RunControl(self.run.controller))

    @asynccontextmanager
    async def client(self, token: str | None = None, given: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(app=Guard(build_app(self.view, "127.0.0.1:1"), token))
        headers = {"authorization": f"Bearer {given}"} if given else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", headers=headers) as client:
            yield client
