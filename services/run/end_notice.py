"""A run's end: written down in the run directory, and told elsewhere as the recipe's `observe.on_end` wants it, to a
command or to a URL.

    {"run": "demo", "directory": "/…/runs/demo", "ended": "finished", "updates": 60, "accuracy": 0.41,
     "seconds": 812.3, "error": "", "host": "node-3"}

`ended` is `finished`, `stopped` (the same command goes on from there) or `failed`. A killed process tells nothing, and
leaves `running` in end.json.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from rayzero.services.schema.config.observe import OnEndSettings
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RunDirectoryError
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import END_FILE, RunDirectory, write_json

logger = logging.getLogger(__name__)

MAX_ERROR_CHARS = 2_000


@dataclass(slots=True)
class RunEnd:
    """How a run ended, as far as it is known."""

    exit_code: int | None = None
    """0: finished; None, with an error: failed; another: stopped."""


@contextlib.contextmanager
def told_at_end(recipe: Recipe, directory: RunDirectory, say: Callable[[str], None]) -> Iterator[RunEnd]:
    """Tell the end of what happens in the block, which notes its exit code. `say` hears what could not be told."""
    end, began, error = RunEnd(), time.monotonic(), ""
    write_json(directory.file(END_FILE), {"ended": "running"})  # what stays where it is killed
    try:
        yield end
    except Exception as failure:
        error = str(failure) or type(failure).__name__
        raise
    finally:
        state = "failed" if error else "finished" if end.exit_code == 0 else "stopped"
        notice = _notice(recipe, directory, state, time.monotonic() - began, error)
        with contextlib.suppress(RunDirectoryError):  # it may be what the run ended by
            write_json(directory.file(END_FILE), notice)
        settings = recipe.observe.on_end
        if settings is not None and (problem := tell(settings, notice)):
            say(f"observe.on_end: {problem}; the run is not touched by it")


def tell(settings: OnEndSettings, notice: Mapping[str, Any]) -> str:
    """Tell, within the deadline of the settings; what went wrong, empty where nothing did. Raises nothing."""
    problems: list[str] = []

    def all_of_it() -> None:
        for told in (_by_command, _by_url):
            try:
                told(settings, notice)
            except Exception as error:  # a notice must not fail what it tells of
                logger.exception("observe.on_end")
                problems.append(f"{type(error).__name__}: {error}"[:500])

    thread = threading.Thread(target=all_of_it, name="on-end", daemon=True)
    thread.start()
    thread.join(settings.deadline_s + 1.0)
    return f"no answer within {settings.deadline_s:g} s" if thread.is_alive() else "; ".join(problems)


def _notice(recipe: Recipe, directory: RunDirectory, state: str, seconds: float, error: str) -> dict[str, Any]:
    rows = read_lines(directory.file("metrics.jsonl"))
    evaluations = read_lines(directory.file("evaluations.jsonl"))
    return {
        "run": recipe.name,
        "directory": str(directory.path.resolve()),
        "ended": state,
        "updates": rows[-1]["update"] if rows else 0,
        "accuracy": evaluations[-1]["accuracy"] if evaluations else None,
        "seconds": round(seconds, 1),
        "error": error[:MAX_ERROR_CHARS],
        "host": platform.node(),
    }


def _by_command(settings: OnEndSettings, notice: Mapping[str, Any]) -> None:
    if not settings.command:
        return
    with subprocess.Popen(
        settings.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that what it starts ends with it
    ) as process:
        try:
            _, said = process.communicate(json.dumps(notice).encode() + b"\n", timeout=settings.deadline_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise TimeoutError(f"{settings.command[0]} took longer than {settings.deadline_s:g} s") from None
    if process.returncode:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"{settings.command[0]} ended with {process.returncode}: {last}")


def _by_url(settings: OnEndSettings, notice: Mapping[str, Any]) -> None:
    url = settings.url or (os.environ.get(settings.url_env, "") if settings.url_env else "")
    if not url:
        if settings.url_env:
            raise RuntimeError(f"the environment variable {settings.url_env} is not set")
        return
    token = os.environ.get(settings.token_env, "") if settings.token_env else ""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.post(url, json=dict(notice), headers=headers, timeout=settings.deadline_s)
    except httpx.HTTPError as error:
        raise RuntimeError(f"the URL does not answer: {type(error).__name__}") from None  # its text may hold the URL
    if answer.status_code >= 400:
        raise RuntimeError(f"the URL answered {answer.status_code}")
