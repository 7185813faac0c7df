"""Where every rollout of a run is on disk, and the figures one filters and sorts by: a small SQLite database.

It lives in the user's cache, never in the run directory, which may be on a network file system; it holds byte offsets,
so that a page of groups out of 100,000 rollouts is read without the rest. Files that changed are read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.plain import plain

logger = logging.getLogger(__name__)

Sort = Literal["newest", "oldest", "spread", "longest", "lowest", "highest", "kl", "unlikely"]

ORDERS: dict[Sort, str] = {
    "newest": "rank DESC, key",
    "oldest": "rank, key",
    "spread": "MAX(reward) - MIN(reward) DESC, rank DESC, key",
    "longest": "MAX(num_tokens) DESC, rank DESC, key",
    "lowest": "AVG(reward), rank DESC, key",
    "highest": "AVG(reward) DESC, rank DESC, key",
    "kl": "MAX(kl_rollout) DESC, rank DESC, key",
    "unlikely": "MIN(logprob_mean), rank DESC, key",
}
SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    name TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, taken INTEGER);
CREATE TABLE IF NOT EXISTS rollouts (
    file TEXT, key TEXT, rank INTEGER, kind TEXT, version INTEGER, offset INTEGER, length INTEGER, position INTEGER,
    prompt_id TEXT, source TEXT, worker TEXT, status TEXT, reward REAL, num_tokens INTEGER, finish_reason TEXT,
    logprob_mean REAL, kl_rollout REAL, seconds REAL, dropped TEXT);
CREATE INDEX IF NOT EXISTS by_file ON rollouts (file);
CREATE INDEX IF NOT EXISTS by_key ON rollouts (key);
CREATE INDEX IF NOT EXISTS by_prompt ON rollouts (prompt_id);
"""
COLUMNS = 19
APPENDED = "dropped.jsonl"
"""The one file that grows; the others are written whole and put in place."""
SETTLED_NS = 2_000_000_000
DAMAGED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, sqlite3.InterfaceError)
"""What reading and storing a line that is no rollout raises: it may be any JSON, or none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Which groups to show: those with a rollout for which all of it holds."""

    kind: Literal["", "train", "evaluation", "dropped"] = ""
    version: int | None = None
    source: str = ""
    status: Literal["", "correct", "wrong", "error"] = ""
    worker: str = ""
    prompt_id: str = ""
    finish_reason: str = ""
    max_reward: float | None = None
    min_reward: float | None = None

    def clause(self) -> tuple[str, list[Any]]:
        """As SQL."""
        equal = {
            name: getattr(self, name)
            for name in ("kind", "version", "source", "status", "worker", "prompt_id", "finish_reason")
            if getattr(self, name) not in ("", None)
        }
        parts, values = [f"{name} = ?" for name in equal], list(equal.values())
        for sign, bound in (("<=", self.max_reward), (">=", self.min_reward)):
            if bound is not None:
                parts.append(f"reward {sign} ?")
                values.append(bound)
        return (" WHERE " + " AND ".join(parts)) if parts else "", values


class RolloutIndex:
    """The index of one run directory. Safe to use from several threads."""

    def __init__(self, run: Path, cache: Path | None = None) -> None:
        """Nothing is read before `refresh`."""
        self.folder = run.resolve() / "rollouts"
        cache = cache or Path(os.environ.get("RAYZERO_CACHE") or Path.home() / ".cache" / "rayzero") / "rollouts"
        # Another version's columns are another file.
        name = hashlib.sha256(f"{self.folder}\n{SCHEMA}".encode()).hexdigest()[:24]
        self._database = _open(cache, f"{name}.sqlite")
        self._lock = threading.Lock()
        self._looked_at_ns: int | None = None

    def refresh(self) -> None:
        """Take in what was written since the last time, and forget what is gone.

        All files but one are put in place whole, which changes the folder's time: as long as that is the same, twenty
        thousand files need no look.

        Raises:
            UsageError: the index cannot be written.
        """
        with self._lock:
            try:
                self._refresh()
                self._database.commit()
            except sqlite3.Error as error:
                self._database.rollback()
                raise UsageError(
                    f"the index of {self.folder} cannot be written: {error}; set RAYZERO_CACHE to a folder with room"
                ) from None

    def _refresh(self) -> None:
        known = {name: tuple(rest) for name, *rest in self._database.execute("SELECT * FROM files")}
        now = time.time_ns()
        changed = self.folder.stat().st_mtime_ns if self.folder.is_dir() else 0
        if changed == self._looked_at_ns:
            found = {APPENDED: stat} if (stat := _stat_of(self.folder / APPENDED)) is not None else {}
        else:
            found = _line_files(self.folder)
            for name in known.keys() - found.keys():
                self._forget(name)
        for name, stat in sorted(found.items()):
            *before, taken = known.get(name, (0,))
            if before == [stat.st_size, stat.st_mtime_ns, stat.st_ino]:
                continue
            if name != APPENDED or taken > stat.st_size or before[-1:] != [stat.st_ino]:
                taken = 0
                self._forget(name)
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile: the next look forgets it
                self._take_in(self.folder / name, taken, stat)
        # Two changes within one tick of the file system's clock have one time.
        self._looked_at_ns = changed if now - changed > SETTLED_NS else None

    def groups(self, wanted: Filter, sort: Sort, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        """A page of groups with their rollouts' figures, and how many groups there are in all."""
        where, values = wanted.clause()
        with self._lock:
            total = self._database.execute(f"SELECT COUNT(DISTINCT key) FROM rollouts{where}", values).fetchone()[0]
            keys = self._database.execute(
                f"SELECT key FROM rollouts{where} GROUP BY key ORDER BY {ORDERS[sort]} LIMIT ? OFFSET ?",
                [*values, limit, offset],
            ).fetchall()
            return [self._summary(key) for (key,) in keys], total

    def summary(self, key: str) -> dict[str, Any]:
        """One group with its rollouts' figures.

        Raises:
            UsageError: there is none of that key.
        """
        with self._lock:
            if self._database.execute("SELECT 1 FROM rollouts WHERE key = ?", [key]).fetchone() is None:
                raise UsageError(f"there is no group {key!r} in this run's rollouts")
            return self._summary(key)

    def rollouts(self, wanted: Filter, limit: int, offset: int) -> Iterator[dict[str, Any]]:
        """Whole rollouts that match, newest first."""
        where, values = wanted.clause()
        with self._lock:
            rows = self._database.execute(
                f"SELECT file, offset, length FROM rollouts{where} ORDER BY rank DESC, key, position LIMIT ? OFFSET ?",
                [*values, limit, offset],
            ).fetchall()
        for file, start, length in rows:
            yield self._read(file, start, length)

    def group(self, key: str) -> list[dict[str, Any]]:
        """The whole rollouts of one group, in order; empty when there is none."""
        with self._lock:
            rows = self._database.execute(
                "SELECT file, offset, length FROM rollouts WHERE key = ? ORDER BY position", [key]
            ).fetchall()
        return [self._read(*row) for row in rows]

    def versions_of(self, prompt_id: str) -> list[dict[str, Any]]:
        """Where a prompt was answered: for the difference between two versions."""
        with self._lock:
            rows = self._database.execute(
                "SELECT key, kind, version, COUNT(*), AVG(reward) FROM rollouts WHERE prompt_id = ? "
                "GROUP BY key ORDER BY version",
                [prompt_id],
            ).fetchall()
        names = ("key", "kind", "version", "num_rollouts", "reward_mean")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def choices(self) -> dict[str, Any]:
        """What one can filter by."""
        with self._lock:
            distinct = {
                name: [value for (value,) in self._database.execute(f"SELECT DISTINCT {name} FROM rollouts ORDER BY 1")]
                for name in ("kind", "source", "worker", "finish_reason", "version")
            }
            count = self._database.execute("SELECT COUNT(*), COUNT(DISTINCT key) FROM rollouts").fetchone()
        return {**distinct, "num_rollouts": count[0], "num_groups": count[1]}

    def close(self) -> None:
        """Let the database go."""
        self._database.close()

    def _forget(self, name: str) -> None:
        self._database.execute("DELETE FROM rollouts WHERE file = ?", [name])
        self._database.execute("DELETE FROM files WHERE name = ?", [name])

    def _take_in(self, file: Path, begin: int, stat: os.stat_result) -> None:
        places, taken = ",".join("?" * COLUMNS), begin
        for offset, line in _lines(file, begin, stat.st_size):
            taken = offset + len(line)
            try:
                self._database.execute(f"INSERT INTO rollouts VALUES ({places})", _row(file, offset, line))
            except DAMAGED as error:
                logger.warning("%s: the line at byte %d is damaged and passed over: %r", file, offset, error)
        self._database.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
            [file.name, stat.st_size, stat.st_mtime_ns, stat.st_ino, taken],
        )

    def _summary(self, key: str) -> dict[str, Any]:
        rows = self._database.execute(
            "SELECT kind, version, prompt_id, source, worker, dropped, position, status, reward, num_tokens, "
            "finish_reason, logprob_mean, kl_rollout, file, offset, length FROM rollouts WHERE key = ? "
            "ORDER BY position",
            [key],
        ).fetchall()
        kind, version, prompt_id, source, worker, dropped = rows[0][:6]
        names = ("index", "status", "reward", "num_tokens", "finish_reason", "logprob_mean", "kl_rollout")
        first = self._read(*rows[0][13:])
        return {
            "key": key,
            "kind": kind,
            "version": version,
            "prompt_id": prompt_id,
            "source": source,
            "worker": worker,
            "dropped": dropped,
            "prompt": first["messages"][-1]["content"][:300],
            "rollouts": [dict(zip(names, row[6:13], strict=True)) for row in rows],
        }

    def _read(self, file: str, offset: int, length: int) -> dict[str, Any]:
        with _opened(self.folder / file) as stream:
            stream.seek(offset)
            try:
                row: dict[str, Any] = plain(json.loads(stream.read(length)))
            except ValueError:
                raise UsageError(f"{self.folder / file} has changed meanwhile: ask again") from None
        return row


def _open(cache: Path, name: str) -> sqlite3.Connection:
    """In memory where the cache cannot be written: a read-only home costs time, and no run."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return _prepared(str(cache / name))
    except (OSError, sqlite3.Error) as error:
        logger.warning("%s cannot be used (%s): the index of the rollouts is kept in memory", cache, error)
        return _prepared(":memory:")


def _prepared(place: str) -> sqlite3.Connection:
    database = sqlite3.connect(place, check_same_thread=False, timeout=30)
    database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + SCHEMA)
    return database


def _line_files(folder: Path) -> dict[str, os.stat_result]:
    """None where a run has no such folder, as in a copy of a part of it."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat() for entry in entries if entry.name.endswith(".jsonl")}


def _stat_of(file: Path) -> os.stat_result | None:
    return file.stat() if file.is_file() else None


def _opened(file: Path) -> BinaryIO:
    try:
        return open(file, "rb")
    except FileNotFoundError:
        raise UsageError(f"{file} is no longer there: the recipe keeps the newest rollouts alone") from None


def _lines(file: Path, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The whole lines between two offsets, each with its own."""
    with open(file, "rb") as stream:
        stream.seek(begin)
        offset = begin
        for line in stream:
            if not line.endswith(b"\n") or offset + len(line) > end:
                return
            yield offset, line
            offset += len(line)


def _row(file: Path, offset: int, line: bytes) -> tuple[Any, ...]:
    """What the index holds of a rollout. Raises one of DAMAGED where the line is none."""
    kind, _, number = file.stem.partition("_")
    row = json.loads(line)
    if b"\\ud" in line:  # an emoji, or the half of one, which SQLite does not take
        row = plain(row)
    newest = max((span[2] for span in row["versions"]), default=0)
    version = int(number) if number.isdigit() else newest
    return (
        file.name,
        f"{file.stem}:{row['group_id']}",
        version * 10_000_000 + abs(row["group_id"]) % 10_000_000,
        {"update": "train"}.get(kind, kind),
        version,
        offset,
        len(line),
        int(row["index"]),
        str(row["prompt_id"]),
        str(row["source"]),
        str(row["worker"]),
        str(row["status"]),
        None if row["reward"] is None else float(row["reward"]),
        int(row["num_tokens"]),
        str(row["finish_reason"]),
        _mean_logprob(row),
        None if row.get("kl_rollout") is None else float(row["kl_rollout"]),
        float(row["seconds"] or 0.0),
        row.get("dropped"),
    )


def _mean_logprob(row: dict[str, Any]) -> float | None:
    """Of the tokens that were sampled; None where one had no chance at all."""
    logprobs = row["rollout_logprobs"]
    if (episode := row.get("episode")) is not None and episode["observed"]:
        heard = {place for start, end in episode["observed"] for place in range(start, end)}
        logprobs = [value for place, value in enumerate(logprobs) if place not in heard]
    return sum(logprobs) / len(logprobs) if logprobs and None not in logprobs else None
