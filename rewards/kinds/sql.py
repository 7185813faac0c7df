"""SQL on SQLite: the answer's query gives the rows that the gold query gives, on every database of the prompt.

What runs a model's query: a child process that is killed at its deadline, a database in memory, one statement, a
budget of steps, and an authorizer that lets it read tables and call functions, nothing else: no file, no extension, no
PRAGMA, no write.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from typing import Any

from rayzero.rewards.answer_part import answer_part
from rayzero.rewards.base import Case
from rayzero.rewards.children.pool import ChildPool
from rayzero.rewards.kinds.pooled import BadPromptError, NoAnswerError, PooledReward
from rayzero.services.schema.config.reward_components import SqlComponent

MAX_ROWS = 10_000
MAX_VALUE_BYTES = 2**20
MAX_QUERY_CHARS = 20_000
MAX_LIKE_CHARS = 200
MAX_STEPS = 20_000_000
"""Instructions of SQLite's machine, about a second: a query that never ends is wrong on every machine, no error."""
STEPS_AT_A_TIME = 10_000
DIGITS = 9
"""Significant digits of a float that count: sums in another order differ in the last ones."""

_FENCE = re.compile(r"^```(\w*)[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_OUTSIDE = re.compile(r"'(?:[^']|'')*'?|\"(?:[^\"]|\"\")*\"?|--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_READS = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE))
_FORBIDDEN_IN_SETUP = frozenset((sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA))
_FORBIDDEN_FUNCTIONS = frozenset(("load_extension", "random", "randomblob", "fts3_tokenizer", "readfile", "writefile"))
"""Of these SQLite's library has but some; chance would make a verdict of another day differ."""

Rows = list[tuple[Any, ...]]


class SqlReward(PooledReward):
    """1 where the rows agree, else 0. `Prompt.answer` is the gold query; a column holds what builds the database."""

    def __init__(self, settings: SqlComponent, pool: ChildPool) -> None:
        super().__init__(pool)
        self.settings = settings

    def item(self, case: Case) -> list[Any]:
        """Scripts, gold query, query, and whether the order of rows counts."""
        gold, setups = case.prompt.answer, case.prompt.columns.get(self.settings.setup_column)
        setups = [setups] if isinstance(setups, str) else setups
        if not isinstance(gold, str) or not gold.strip():
            raise BadPromptError("the gold answer must be a query")
        if not isinstance(setups, list | tuple) or not setups or not all(isinstance(one, str) for one in setups):
            raise BadPromptError(f"column {self.settings.setup_column} must be an SQL script or a list of them")
        part = answer_part(case.text, prefilled=case.prefilled)
        if part is None:
            raise NoAnswerError("the thought never ends: no </think>")
        query = query_text(part)
        if not query or len(query) > MAX_QUERY_CHARS:
            raise NoAnswerError("no query in the answer part" if not query else "the query is too long")
        in_order = self.settings.order == "strict" or (self.settings.order == "auto" and is_ordered(gold))
        return [list(setups), gold, query, in_order]

    def control(self, item: list[Any]) -> list[Any]:
        """The gold query in the query's place. One call of `trim` may take minutes: no budget of steps ends it."""
        setups, gold, _, in_order = item
        return [setups, gold, gold, in_order]


def query_text(part: str) -> str:
    """The last fenced block that is SQL by its tag or has none; else all of the answer part."""
    blocks = [body for tag, body in _FENCE.findall(part) if tag.lower() in ("", "sql", "sqlite", "sqlite3")]
    return (blocks[-1] if blocks else part).strip()


def is_ordered(query: str) -> bool:
    """ORDER BY stands outside all brackets: the order of the rows is part of the question."""
    kept, depth = [], 0
    for char in _OUTSIDE.sub(" ", query):
        depth += char == "("
        kept.append(" " if depth else char)
        depth -= char == ")" and depth > 0
    text = "".join(kept)
    return re.search(r"\border\s+by\b", text, re.IGNORECASE) is not None


def judge_of(_: Any) -> Callable[[list[Any]], list[Any]]:
    """For a child: judges (scripts, gold query, query, in order)."""

    def judge(item: list[Any]) -> list[Any]:
        setups, gold, query, in_order = item
        for number, setup in enumerate(setups, 1):
            try:
                wanted = _rows(setup, gold)
            except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
                return [False, "", f"database {number}: {error}"]
            try:
                found = _rows(setup, query)
            except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
                return [False, f"the query fails: {error}", ""]
            if not same_rows(found, wanted, in_order=in_order):
                return [False, f"other rows on database {number}: {len(found)} against {len(wanted)}", ""]
        return [True, f"the same rows on {len(setups)} databases", ""]

    return judge


def same_rows(found: Rows, wanted: Rows, *, in_order: bool) -> bool:
    """Equal as lists, or as multisets; 1 is 1.0, and NULL is nothing but NULL."""
    plain = [[tuple(map(_plain, row)) for row in rows] for rows in (found, wanted)]
    return plain[0] == plain[1] if in_order else Counter(plain[0]) == Counter(plain[1])


def _plain(value: Any) -> tuple[str, Any]:
    if isinstance(value, int | float):
        whole = isinstance(value, int) or value.is_integer()
        return ("number", int(value) if whole and math.isfinite(value) else float(f"{value:.{DIGITS}g}"))
    return (type(value).__name__, value)


def _rows(setup: str, query: str) -> Rows:
    """Build a database in memory and ask it one question. Raises sqlite3.Error; ValueError for too many rows."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_LIKE_CHARS)
        connection.set_authorizer(_while_building)
        connection.executescript(setup)
        connection.set_authorizer(_while_asking)
        budget = iter(range(MAX_STEPS // STEPS_AT_A_TIME))
        connection.set_progress_handler(lambda: next(budget, None) is None, STEPS_AT_A_TIME)
        cursor = connection.execute(query)
        if cursor.description is None:
            raise ValueError("it returns no rows: a SELECT is expected")
        found = cursor.fetchmany(MAX_ROWS + 1)
        if len(found) > MAX_ROWS:
            raise ValueError(f"more than {MAX_ROWS} rows")
        return found
    finally:
        connection.close()


def _while_building(action: int, first: str | None, second: str | None, *_: Any) -> int:
    function = action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS
    return sqlite3.SQLITE_DENY if function or action in _FORBIDDEN_IN_SETUP else sqlite3.SQLITE_OK


def _while_asking(action: int, first: str | None, second: str | None, *_: Any) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if (second or "").lower() in _FORBIDDEN_FUNCTIONS else sqlite3.SQLITE_OK
    return sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY
