"""What a check of a file found, as data and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rayzero.services.data.example import Example

SHOWN_PLACES = 5
SHOWN_COUNTS = 10


@dataclass(slots=True)
class FaultGroup:
    """All faults of one kind."""

    count: int = 0
    first: list[str] = field(default_factory=list)
    """Where the first of them are."""
    example: str = ""
    """What is wrong with the first."""

    def add(self, place: str, text: str) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < SHOWN_PLACES:
            self.first.append(place)
        self.example = self.example or text


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of the prompts, in characters."""

    median: int
    percentile_95: int
    longest: int


@dataclass(slots=True)
class GradedSample:
    """Rows that were graded with their own reference solution, or with their own gold answer in a box."""

    with_solution: int = 0
    with_gold: int = 0
    correct: int = 0
    skipped: str = ""
    """Why programs were not run; empty where they were."""


@dataclass(kw_only=True, slots=True)
class DataReport:
    """The findings about one file."""

    path: str
    kind: str
    format: str | None
    about: str
    rows: int = 0
    checked: int = 0
    """Rows that were read: all, or as many as were asked for."""
    usable: int = 0
    """Rows that a run would take."""
    faults: dict[str, FaultGroup] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    """What the rows' own column of sources says."""
    lengths: Lengths | None = None
    examples: list[Example] = field(default_factory=list)
    """Of rows whose gold answer no solution proves."""
    sample: GradedSample = field(default_factory=GradedSample)
    packages: list[str] = field(default_factory=list)
    """Third-party packages that solutions or tests of the sample import."""
    recipe: str = ""
    """Lines to paste into a recipe."""

    def add(self, kind: str, place: str, text: str) -> None:
        """A fault of this kind."""
        self.faults.setdefault(kind, FaultGroup()).add(place, text)

    def lines(self) -> Iterator[str]:
        """The report as text."""
        what = f"{self.format}, {self.about}" if self.format else "no published format; columns are mapped"
        yield f"{self.path}: {self.kind}, {self.rows:,} rows; {what}"
        if self.checked < self.rows:
            yield f"  read: the first {self.checked:,}; the others were not looked at"
        yield f"  usable: {self.usable:,} of {self.checked:,}"
        for name, counts in (("tasks", self.tasks), ("sources", self.sources)):
            if counts:
                yield f"  {name}: " + ", ".join(f"{key} {count:,}" for key, count in _most(counts))
        if self.lengths is not None:
            median, most, longest = self.lengths.median, self.lengths.percentile_95, self.lengths.longest
            yield f"  prompts: {median:,} characters in the median, 95 % up to {most:,}, {longest:,} at most"
        yield from self._sample_lines()
        if self.examples:
            yield "  is each gold answer that of its prompt? no check can tell"
            yield from (f"    {example.line}" for example in self.examples)
        for kind, group in sorted(self.faults.items(), key=lambda item: -item[1].count):
            places = ", ".join(group.first) + (", …" if group.count > len(group.first) else "")
            yield f"  {kind}: {group.count:,} ({places})"
            yield f"    {group.example}"
        if not self.faults:
            yield "  no fault found"
        yield ""
        yield from self.recipe.splitlines()

    def _sample_lines(self) -> Iterator[str]:
        sample = self.sample
        graded = sample.with_solution + sample.with_gold
        if graded:
            yield (
                f"  graded: {sample.correct} of {graded} right ({sample.with_solution} by their own solution, "
                f"{sample.with_gold} by their own gold answer)"
            )
        if sample.with_gold and not sample.with_solution:
            yield "    a gold answer against itself shows that it can be read, not that it is true"
        if self.packages:
            yield f"  they import: {', '.join(self.packages)} (the recipe lines name them)"
        if sample.skipped:
            yield f"  programs were not run: {sample.skipped}"


def _most(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])[:SHOWN_COUNTS]
