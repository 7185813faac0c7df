"""An engine's processes end with their owner, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from rayzero.rollout_workers import watchdog
from tests.process_life import lives

OWNER_CODE = """
import subprocess, sys, time
from rayzero.rollout_workers.watchdog import own_engines
own_engines()
engine = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(engine.stdout.readline().strip(), flush=True)
time.sleep(60)
"""
ENGINE_CODE = """
import os, time
from rayzero.rollout_workers.watchdog import end_with_owner
end_with_owner()
print(os.getpid(), flush=True)
time.sleep(60)
"""
CORE_CODE = f"""
import subprocess, sys, os, time
worker = subprocess.Popen([sys.executable, "-c", {ENGINE_CODE!r}], stdout=subprocess.PIPE, text=True)
print(os.getpid(), worker.stdout.readline().strip(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("code", [ENGINE_CODE, CORE_CODE], ids=["one process", "core and worker"])
def test_killing_the_owner_ends_the_engine(code: str) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER_CODE, code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        engine = [int(process) for process in owner.stdout.readline().split()]
        assert engine
        assert all(map(lives, engine))
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    give_up = time.monotonic() + 5
    while any(map(lives, engine)) and time.monotonic() < give_up:
        time.sleep(0.02)
    assert not any(map(lives, engine))


def test_without_an_owner_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(watchdog.OWNER, raising=False)
    watchdog.end_with_owner()


def test_owner_does_not_watch_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(watchdog.OWNER, "")
    watchdog.own_engines()
    assert os.environ[watchdog.OWNER] == str(os.getpid())
    watchdog.end_with_owner()
