"""`rayzero sweep`: members one after another or side by side; what is done is not run again.

    key=a,b ─► combinations ─► a process and a directory each ─► sweep.json, sweep.md, sweep.png

A sweep goes on by the same command, inside the members that were interrupted; values may be added to what varies.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from rayzero.services.pipeline.loading import is_pipeline, load_pipeline
from rayzero.services.pipeline.precision import settled as settled_pipeline
from rayzero.services.run import precision
from rayzero.services.run.interrupts import answer_signals
from rayzero.services.schema.config.loader import load_recipe, read_document
from rayzero.services.schema.errors import RayzeroError, RunDirectoryError, UsageError
from rayzero.services.store.run_directory import write_json
from rayzero.services.sweep.grid import Combination, combinations
from rayzero.services.sweep.members import Member
from rayzero.services.sweep.process import MemberProcess
from rayzero.services.sweep.report import print_sweep, write_sweep

INTERRUPTED = 130
TAIL_LINES = 12


@dataclass(slots=True)
class Sweep:
    """All members of a sweep, and the processes of those that are running."""

    head: Mapping[str, Any]
    members: Sequence[Member]
    directory: Path
    console: Console
    running: dict[str, MemberProcess] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    interrupted: bool = False

    def run(self, jobs: int) -> int:
        """Train what is not done, `jobs` at a time, and report; the exit code.

        Raises:
            RunDirectoryError: another process is at this sweep.
        """
        with self._locked():
            return self._run_left(jobs)

    def _run_left(self, jobs: int) -> int:
        left = [member for member in self.members if not member.is_done]
        if len(left) < len(self.members):
            self._say(f"{len(self.members) - len(left)} of {len(self.members)} are done already")
        if left:
            asyncio.run(self._run(left, jobs))
        return self._close()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Two sweeps in one directory would each start what the other has begun."""
        with open(self.directory / "sweep.lock", "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunDirectoryError(
                    f"{self.directory} is in use by another rayzero sweep; stop it or choose another --out"
                ) from None
            yield

    async def _run(self, left: Sequence[Member], jobs: int) -> None:
        answer_signals(self._on_signal)
        places = asyncio.Semaphore(jobs)

        async def one(member: Member) -> None:
            async with places:
                if not self.interrupted:
                    await self._train(member)

        await asyncio.gather(*(one(member) for member in left))

    async def _train(self, member: Member) -> None:
        name, log = member.combination.name, self.directory / f"{member.combination.folder}.log"
        self._say(f"{name}: begins; its output is in {log}")
        started = time.monotonic()
        process = self.running[name] = MemberProcess()
        try:
            code = await process.run(member.command, log)
        finally:
            del self.running[name]
        minutes = (time.monotonic() - started) / 60
        if code == 0 and member.is_done:
            self._say(f"{name}: done after {minutes:.1f} min")
        elif self.interrupted:
            self._say(f"{name}: interrupted")
        else:
            self.failed.append(name)
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
            self._say(f"{name}: ended with exit code {code} after {minutes:.1f} min; the end of {log}:")
            for line in tail:
                self._say(f"    {line}")

    def _on_signal(self, number: signal.Signals) -> None:
        """Every member gets it, as if it ran alone: the first lets it save, a second Ctrl-C ends it at once."""
        if not self.interrupted:
            self._say(f"{number.name}: ending what runs; the same command goes on from there")
        self.interrupted = True
        for process in self.running.values():
            process.send(number)

    def _close(self) -> int:
        rows = []
        for member in self.members:
            if member.is_done:
                shown, combination = member.shown(), member.combination
                rows.append({
                    "name": combination.name, "setting": combination.setting, "values": dict(combination.values),
                    "seconds": round(shown.seconds, 1), "figures": shown.figures, "curves": shown.curves,
                })  # fmt: skip
        if rows:
            write_sweep(self.directory, self.head, rows)
            print_sweep(self.console, self.directory, rows)
        if self.failed:
            self._say(f"failed: {'; '.join(self.failed)}")
        return INTERRUPTED if self.interrupted else 1 if self.failed else 0

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)


def open_sweep(recipe: Path, arguments: Sequence[str], out: Path | None, console: Console) -> Sweep:
    """The sweep in its directory: a new one, or the one there.

    Raises:
        RecipeError: a combination's recipe is refused.
        UsageError: nothing varies, or the directory holds a sweep of another recipe.
    """
    found = combinations(arguments)
    pipeline = is_pipeline(recipe)
    content, _ = read_document(recipe, found[0].fixed)
    directory = (out or Path("runs") / f"{content.get('name', recipe.stem)}-sweep").resolve()
    before = _head(directory)
    varied = [key for key, _ in found[0].values]
    asked = {"name": content.get("name", recipe.stem), "recipe": str(recipe), "content": content, "varied": varied}
    if before is not None:
        for key, words in (("content", "of another recipe, or with other fixed keys"), ("varied", "of other keys")):
            if before[key] != asked[key]:
                raise UsageError(f"{directory} holds a sweep {words}: name another directory with --out")
    dtype = before["dtype"] if before is not None else _dtype(recipe, found[0].overrides, pipeline)
    head = {**asked, "dtype": dtype}
    key = "dtype" if pipeline else "model.dtype"
    # One for all, on whatever machine the sweep goes on; unless it is what varies.
    fixed = (*found[0].fixed, *(() if key in varied else (f"{key}={dtype}",)))
    members = [
        Member(
            combination=Combination(values=each.values, fixed=fixed),
            recipe=recipe.resolve(),
            is_pipeline=pipeline,
            directory=directory / each.folder,
        )
        for each in found
    ]
    for member in members:
        member.check()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory} cannot be made: {error.strerror}; name another with --out") from None
    if before is None:
        write_json(directory / "sweep.json", {**head, "members": []})
    return Sweep(head=head, members=members, directory=directory, console=console)


def run(recipe: Path, arguments: Sequence[str], out: Path | None, jobs: int, console: Console) -> int:
    """`rayzero sweep`; the exit code.

    Raises:
        RayzeroError: the sweep is refused, or a process cannot be started.
    """
    return open_sweep(recipe, arguments, out, console).run(jobs)


def _dtype(recipe: Path, overrides: Sequence[str], pipeline: bool) -> str:
    if pipeline:
        return str(settled_pipeline(load_pipeline(recipe, overrides)).pipeline.dtype)
    return precision.settled(load_recipe(recipe, overrides)).model.dtype


def _head(directory: Path) -> dict[str, Any] | None:
    """What a sweep that is there was begun with; None where there is none."""
    file = directory / "sweep.json"
    if not file.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {key: content[key] for key in ("content", "varied", "dtype")}
    except (ValueError, KeyError, TypeError):
        raise RayzeroError(f"{file} is no sweep's: move it away, or name another directory with --out") from None
