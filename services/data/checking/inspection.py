"""One pass over a file: faults by kind, questions asked twice or held out, sources, lengths; a row at a time."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rayzero.services.data.checking.answers import check_answer
from rayzero.services.data.checking.report import DataReport, Lengths
from rayzero.services.data.example import WITH_RULES, example
from rayzero.services.data.formats.problem import RowFault
from rayzero.services.data.formats.registry import FORMATS
from rayzero.services.data.keys import short_key
from rayzero.services.data.sources.rows import Row, mapped
from rayzero.services.data.sources.table import RowTable
from rayzero.services.schema.config.data import DataSource
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SOURCE_COLUMNS = ("data_source", "source", "dataset", "subset", "platform")


@dataclass(kw_only=True, slots=True)
class Inspection:
    """A file's rows under the settings that read them."""

    table: RowTable
    settings: DataSource
    task: str | None
    """Of all rows, where no format says it of each."""
    report: DataReport
    keys: array[int] = field(default_factory=lambda: array("Q"))
    """Of the usable rows' questions."""
    places: array[int] = field(default_factory=lambda: array("Q"))
    """Their places in the table."""

    def run(self, max_rows: int | None) -> None:
        """Read the rows, up to `max_rows`, and count what is found."""
        lengths = array("Q")
        self.report.rows = len(self.table)
        self.report.checked = min(len(self.table), max_rows or len(self.table))
        for place in range(self.report.checked):
            prompt = self._prompt(place)
            if prompt is None:
                continue
            lengths.append(sum(len(message.content) for message in prompt.messages))
            self.keys.append(short_key(prompt))
            self.places.append(place)
        self.report.usable = len(self.keys)
        if lengths:
            median, most, longest = np.percentile(np.frombuffer(lengths, dtype=np.uint64), (50, 95, 100))
            self.report.lengths = Lengths(int(median), int(most), int(longest))
        self._find_repeated()
        self._choose_examples()

    def find_held_out(self, other: Inspection) -> None:
        """Note the questions of this file that `other`, the held-out one, asks as well."""
        theirs, first = np.unique(other._keys(), return_index=True)
        mine = self._keys()
        for index in np.flatnonzero(np.isin(mine, theirs)):
            twin = other._place(int(first[np.searchsorted(theirs, mine[index])]))
            self.report.add("held-out overlap", self._place(int(index)), f"is also held out: {twin} asks the same")

    def first_prompts(self, count: int) -> list[Prompt]:
        """Of the first usable rows."""
        rows = (self.table[place] for place in self.places[:count])
        return [mapped(row, self.settings, f"row/{row.number}") for row in rows]

    def solution(self, row: Row) -> str | None:
        """The row's own reference solution; None where there is none."""
        if self.settings.format is None:
            return None
        return FORMATS[self.settings.format].read(row.values).solution

    def task_of(self, prompt: Prompt) -> str:
        """The kind of reward that judges a prompt."""
        return self.task or prompt.source

    def _prompt(self, place: int) -> Prompt | None:
        """The row's prompt; None, and a fault noted, where it makes none."""
        try:
            row = self.table[place]
            prompt = mapped(row, self.settings, f"row/{row.number}")
            check_answer(self.task_of(prompt), prompt.answer)
        except RowFault as fault:
            self.report.add(fault.kind, self.table.origin(place), str(fault))
            return None
        except RecipeError as error:
            origin = self.table.origin(place)
            self.report.add("broken row", origin, str(error).removeprefix(f"{origin}: "))
            return None
        _count(self.report.tasks, self.task_of(prompt))
        source = next((row.values[name] for name in _SOURCE_COLUMNS if isinstance(row.values.get(name), str)), None)
        if source is not None:
            _count(self.report.sources, source)
        return prompt

    def _choose_examples(self) -> None:
        """The first usable row, the middle one and the last: a column that slipped shows in any of them."""
        bare = self.settings.model_copy(update={"instructions": "{prompt}"})  # the row's own words
        for index in sorted({0, len(self.keys) // 2, len(self.keys) - 1}) if self.keys else ():
            row = self.table[self.places[index]]
            prompt = mapped(row, bare, f"row/{row.number}")
            is_told = self.task_of(prompt) not in WITH_RULES and self.solution(row) is None
            if is_told and (shown := example(row.origin, prompt)):
                self.report.examples.append(shown)

    def _find_repeated(self) -> None:
        _, first, which = np.unique(self._keys(), return_index=True, return_inverse=True)
        for index in np.flatnonzero(first[which] != np.arange(len(which))):
            earlier = self._place(int(first[which[index]]))
            self.report.add("duplicate prompt", self._place(int(index)), f"asks what {earlier} asks")

    def _place(self, index: int) -> str:
        return self.table.origin(self.places[index])

    def _keys(self) -> NDArray[np.uint64]:
        return np.array(self.keys, dtype=np.uint64) if self.keys else np.zeros(0, dtype=np.uint64)


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def first_values(table: RowTable, count: int) -> list[dict[str, Any]]:
    """Columns of the first rows that can be read."""
    found = []
    for place in range(min(count, len(table))):
        try:
            found.append(dict(table[place].values))
        except RecipeError:
            continue
    return found
