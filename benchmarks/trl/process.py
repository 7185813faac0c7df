"""TRL's training as its parent sees it: the process, what it has written so far, and the curve that comes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.trl.reward_curve import Curve, Point
from rayzero.services.schema.cpu_process import cpu_environment
from rayzero.services.schema.errors import DeadlineError, RayzeroError
from rayzero.services.schema.import_root import IMPORT_ROOT
from rayzero.services.store.json_lines import append_lines, read_lines

COMMAND = ("-m", "benchmarks.trl.training")
SILENCE_S = 900.0
"""Longest wait for the next line: loading, measuring micro-batches, an update, an evaluation."""
END_S = 20.0
POLL_S = 0.5
SHOWN_LINES = 8


def train_with_trl(spec: dict[str, Any], out: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run benchmarks/trl/training.py to its end; returns its rows. A finished training with this spec is read.

    `say` hears of every update. However this is left, the process is ended.

    Raises:
        RayzeroError: it failed; with the last lines of its log.
        DeadlineError: it has said nothing for too long.
    """
    found = finished_rows(out, spec)
    if found:
        say(f"finished before: {out}")
        return found
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    asked, log = out.with_suffix(".spec.json"), out.with_suffix(".log")
    asked.write_text(json.dumps({**spec, "out": str(out)}), encoding="utf-8")
    started_s = time.monotonic()
    with log.open("wb") as stream:
        # A session of its own: Ctrl-C comes here, and this process ends it.
        child = subprocess.Popen(
            [sys.executable, *COMMAND, str(asked)],
            env=_environment(bool(spec.get("as_installed"))),
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _follow(child, out, say)
    finally:
        _end(child)
    if child.returncode != 0:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-SHOWN_LINES:]
        raise RayzeroError(
            f"TRL's training ended with exit code {child.returncode}; all of it in {log}, its end:\n" + "\n".join(last)
        )
    append_lines(out, [{"event": "wall", "seconds": time.monotonic() - started_s}])
    return read_lines(out)


def finished_rows(out: Path, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a training that ran to its end with this spec; none otherwise."""
    rows = read_lines(out)
    if not rows or rows[-1]["event"] != "wall":
        return []

    def asked(given: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in given.items() if key not in ("out", "micro_batch")}

    return rows if asked(rows[0]["spec"]) == asked(spec) else []


def trl_curve(rows: Sequence[dict[str, Any]]) -> Curve:
    """From the rows of a finished training."""
    by_event = {row["event"]: row for row in rows}
    points = tuple(
        Point(update=row["update"], seconds=row["seconds"], samples=row["samples"], accuracy=row["accuracy"])
        for row in rows
        if row["event"] == "evaluation"
    )
    outside_s = by_event["wall"]["seconds"] - by_event["settings"]["probe_s"] - points[-1].seconds
    rewards = tuple(row["reward_mean"] for row in rows if row["event"] == "update")
    return Curve(points=points, outside_s=outside_s, ended=by_event["end"]["ended"], rewards=rewards)


def settings_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What TRL was run with: `text` for people, and `micro_batch`."""
    return next(row for row in rows if row["event"] == "settings")


def _environment(as_installed: bool) -> dict[str, str]:
    """All cores, no network, rayzero's sources, and the allocator of its processes, unless TRL is run as installed."""
    root = str(IMPORT_ROOT)
    return {
        **os.environ,
        **({} if as_installed else cpu_environment()),
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _follow(child: subprocess.Popen[bytes], out: Path, say: Callable[[str], None]) -> None:
    told, heard_s = 0, time.monotonic()
    while child.poll() is None:
        time.sleep(POLL_S)
        rows = read_lines(out)
        if len(rows) > told:
            heard_s = time.monotonic()
        for row in rows[told:]:
            if text := _tell(row):
                say(text)
        told = len(rows)
        if time.monotonic() - heard_s > SILENCE_S:
            raise DeadlineError(f"TRL's training has said nothing for {SILENCE_S:.0f} s; see {out.with_suffix('.log')}")


def _tell(row: dict[str, Any]) -> str:
    match row["event"]:
        case "settings":
            return str(row["text"])
        case "update":
            reward = "–" if row["reward_mean"] is None else f"{row['reward_mean']:.3f}"
            return f"update {row['update']:>4}  {row['seconds']:6.0f} s  reward {reward}"
        case "evaluation":
            return f"held-out accuracy at update {row['update']}: {row['accuracy']:.1%}  {row['seconds']:6.0f} s"
    return ""


def _end(child: subprocess.Popen[bytes]) -> None:
    """Gone when this returns, its reward processes with it."""
    if child.stdin is not None:
        child.stdin.close()
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
