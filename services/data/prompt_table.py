"""A source's prompts, made of its rows when they are asked for; and what one look at them says before a run.

Files up to WHOLE_BYTES are read whole: every row is checked, every question compared with those held out. Of larger
ones a sample is; the rest is checked row by row as it is drawn, and refused by name then.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from rayzero.services.data.formats.problem import Values
from rayzero.services.data.keys import as_text, judged_by, judged_by_text, question_key, short_key
from rayzero.services.data.sources.registry import open_rows
from rayzero.services.data.sources.rows import Row, plain_questions, to_prompt
from rayzero.services.data.sources.table import RowTable
from rayzero.services.schema.config.data import DataSource
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE_BYTES = 200 * 2**20
SAMPLE_ROWS = 10_000
"""Of a file above WHOLE_BYTES: a tenth of them its first rows, the others spread over it."""
MADE_ROWS = 8
"""Of a source that makes its rows, spread over it: countdown takes 40 milliseconds for one."""


class PromptTable:
    """The prompts of a source, or of its rows at `places`."""

    def __init__(self, rows: RowTable, source: DataSource, prefix: str) -> None:
        self.rows = rows
        self.source = source
        self._prefix = prefix
        self._places: NDArray[np.int64] | None = None
        self._keys: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.rows) if self._places is None else len(self._places)

    def __getitem__(self, index: int) -> Prompt:
        place = index if self._places is None else int(self._places[index])
        row = self.rows[place]
        prompt = self.of_row(row)
        if self._keys is not None and short_key(prompt) != self._keys[place]:
            raise RecipeError(f"{row.origin}: the file changed while the run reads it: restore it, repeat the command")
        return prompt

    def __iter__(self) -> Iterator[Prompt]:
        if self._places is None:
            return (self.of_row(row) for row in self.rows)
        return (self[index] for index in range(len(self)))

    def of_row(self, row: Row) -> Prompt:
        """Raises RecipeError, naming the row."""
        return to_prompt(row, self.source, f"{self._prefix}/{row.number}")

    def without(self, keys: NDArray[np.uint64], dropped: NDArray[np.uint64]) -> PromptTable:
        """The prompts whose key, by row in `keys`, is none of `dropped`. From now on they must keep their keys."""
        table = PromptTable(self.rows, self.source, self._prefix)
        table._keys = keys
        table._places = np.flatnonzero(~np.isin(keys, dropped))
        return table


@dataclass(frozen=True, kw_only=True, slots=True)
class Examined:
    """A source after one look at it."""

    prompts: PromptTable
    source: DataSource
    places: NDArray[np.int64] | None
    """The rows that were looked at; None: all."""
    keys: NDArray[np.uint64]
    """Their prompts' keys."""
    fingerprint: str

    @property
    def unread(self) -> str:
        """What was not looked at, in a sentence; empty where all was."""
        if self.places is None:
            return ""
        total, size = len(self.prompts), self.prompts.rows.num_bytes / 2**20
        if self.prompts.rows.is_made:
            return f"source {self.source.name} makes its {total:,} prompts as they are needed"
        return (
            f"source {self.source.name} has {size:,.0f} MiB, more than {WHOLE_BYTES / 2**20:.0f}: {len(self.places):,} "
            f"of its {total:,} rows were checked, each other one is when it is drawn"
        )

    def first_with(self, key: int) -> Prompt | None:
        """The first prompt of those looked at that has this key."""
        found = np.flatnonzero(self.keys == np.uint64(key))
        if not len(found):
            return None
        return self.prompts[int(found[0] if self.places is None else self.places[found[0]])]


def examine(
    source: DataSource, prefix: str, has_rubric: Callable[[str], bool] | None = None, *, whole: bool = False
) -> Examined:
    """Open a source and read it, or with more than WHOLE_BYTES, or where rows are made, a sample unless `whole`.

    Raises:
        RecipeError: it cannot be read, a row is broken or wants a rubric that there is not; names file and line.
    """
    rows = open_rows(source)
    prompts = PromptTable(rows, source, prefix)
    places = None if whole else places_to_look_at(rows)
    look = _Look(prompts, has_rubric)
    if places is not None:
        settings = source.model_dump_json() if rows.is_made else ""
        look.digest.update(f" {rows.num_bytes}{settings}".encode())
        for place in places:
            look.at(rows[int(place)])
    elif (plain := plain_questions(source)) is not None and plain(rows[0].values) is not None:
        look.at_questions(plain)
    else:
        for row in rows:
            look.at(row)
    return Examined(
        prompts=prompts,
        source=source,
        places=places,
        keys=np.frombuffer(look.keys, dtype=np.uint64),
        fingerprint=look.digest.hexdigest(),
    )


class _Look:
    """Goes through a source's rows once: what they ask, and that each of them can be used."""

    def __init__(self, prompts: PromptTable, has_rubric: Callable[[str], bool] | None) -> None:
        self.keys = array("Q")
        self.digest = xxhash.xxh3_128(f"{len(prompts)}".encode())
        self._prompts = prompts
        self._has_rubric = has_rubric
        self._known: set[str] = set()

    def at(self, row: Row) -> None:
        """One row. Raises RecipeError, naming it."""
        prompt = self._prompts.of_row(row)
        if prompt.source not in self._known:
            check_source(prompt, row.origin, self._has_rubric)
            self._known.add(prompt.source)
        self._note(short_key(prompt), judged_by(prompt))

    def at_questions(self, plain: Callable[[Values], tuple[str, str] | None]) -> None:
        """All rows, of which most are plain questions: a million of them in seconds. Raises RecipeError."""
        rows = self._prompts.rows
        check_source(self._prompts.of_row(rows[0]), rows[0].origin, self._has_rubric)  # that of every plain question
        for place, values in enumerate(rows.values()):
            found = plain(values)
            if found is None:
                self.at(rows[place])
            else:
                more = as_text(values) if len(values) > 2 else ""  # further columns, which a reward may read
                self._note(question_key(found[0]), judged_by_text(found[1], self._prompts.source.name) + more)

    def _note(self, key: int, rest: str) -> None:
        self.keys.append(key)
        self.digest.update(f"\n{key} {rest}".encode(errors="surrogatepass"))


def check_source(prompt: Prompt, origin: str, has_rubric: Callable[[str], bool] | None) -> None:
    """Raise RecipeError for a prompt that no rubric judges."""
    if has_rubric is not None and not has_rubric(prompt.source):
        raise RecipeError(f"{origin}: no rubric for source {prompt.source!r}: add it, or `default`, to reward.rubrics")


def places_to_look_at(rows: RowTable) -> NDArray[np.int64] | None:
    """Of a source that is not read whole before the start; None where it is."""
    count = len(rows)
    if rows.is_made:
        return np.unique(np.linspace(0, count - 1, min(MADE_ROWS, count)).astype(np.int64))
    if rows.num_bytes <= WHOLE_BYTES:
        return None
    return _sample(count)


def _sample(count: int) -> NDArray[np.int64]:
    first = np.arange(min(SAMPLE_ROWS // 10, count))
    spread = np.linspace(0, count - 1, min(SAMPLE_ROWS - len(first), count)).astype(np.int64)
    return np.union1d(first, spread).astype(np.int64)
