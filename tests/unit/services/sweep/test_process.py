"""A member's process: its output, the signals that it is handed, and that it ends with what waits for it."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from rayzero.services.schema.errors import RayzeroError
from rayzero.services.sweep.process import MemberProcess

STOPS = """
import signal, sys, time
def stop(*_):
    print("saved", flush=True)
    sys.exit(130)
signal.signal(signal.SIGINT, stop); signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""


async def _ready(log: Path) -> None:
    async with asyncio.timeout(30):
        while not log.is_file() or "ready\n" not in log.read_text():
            await asyncio.sleep(0.02)


async def test_it_is_handed_signals_and_its_output_is_kept(tmp_path: Path) -> None:
    process, log = MemberProcess(), tmp_path / "log"
    going = asyncio.create_task(process.run([sys.executable, "-c", STOPS], log))
    await _ready(log)
    process.send(signal.SIGINT)
    assert await asyncio.wait_for(going, 30) == 130
    assert log.read_text() == "ready\nsaved\n"
    process.send(signal.SIGINT)  # to one that has ended: nothing


async def test_a_signal_that_comes_before_it_is_there_reaches_it(tmp_path: Path) -> None:
    process = MemberProcess()
    process.send(signal.SIGTERM)
    assert (
        await asyncio.wait_for(process.run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log"), 30)
        != 0
    )


async def test_it_ends_with_what_waits_for_it(tmp_path: Path) -> None:
    process, log = MemberProcess(), tmp_path / "log"
    going = asyncio.create_task(process.run([sys.executable, "-c", STOPS], log))
    await _ready(log)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert "saved" in log.read_text()


async def test_what_cannot_be_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(RayzeroError, match="nowhere cannot be started"):
        await MemberProcess().run(["/nowhere"], tmp_path / "log")
