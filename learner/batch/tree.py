"""How a prompt and all that continues it lie in a micro-batch: a nested tree, and what each part of it sees.

    prompt | completion 1 | completion 2 | a branch of completion 2 | ...

Completions leave the prompt at its end, unless `forks` says where else. A completion sees what it shares with its
parent's path, and causally itself. What a prompt has in common with one of another tree lies there alone (`prefix`).
"""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[int, int]
"""(start, length) in the micro-batch."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Queries [start, start + length) see the keys of `context`, in order, and causally themselves."""

    start: int
    length: int
    context: tuple[Range, ...] = ()

    @property
    def num_seen(self) -> int:
        """Tokens of the context."""
        return sum(length for _, length in self.context)


@dataclass(frozen=True, slots=True)
class Tree:
    """A prompt with its completions at `start` of a micro-batch; lengths count the tokens that are fed here."""

    start: int
    prompt_length: int
    """Tokens of the prompt that lie here, behind those of `prefix`."""
    completion_lengths: tuple[int, ...]
    forks: tuple[tuple[int, int], ...] = ()
    """(parent, fork) of each completion. Parent 0 is the prompt, k completion k - 1, which stands before it; fork: the
    tokens of the parent's path that it continues, counted from the prompt's first, the last of them the parent's own.
    Empty: all continue the whole prompt."""
    prefix: tuple[Range, ...] = ()
    """Where the prompt's first tokens lie, in prompts of trees before this one."""

    @property
    def num_tokens(self) -> int:
        """Length of the whole tree."""
        return self.prompt_length + sum(self.completion_lengths)

    @property
    def path(self) -> tuple[Range, ...]:
        """Where the whole prompt lies."""
        return (*self.prefix, (self.start, self.prompt_length))

    @property
    def path_length(self) -> int:
        """Tokens of the whole prompt."""
        return sum(length for _, length in self.path)

    @property
    def prompt(self) -> Segment:
        """What lies here of the prompt. It sees its beginning, and causally itself."""
        return Segment(self.start, self.prompt_length, self.prefix)

    @property
    def completions(self) -> tuple[Segment, ...]:
        """Each completion, also one of which nothing is fed."""
        at = self.start + self.prompt_length
        if not self.forks:
            segments = []
            for length in self.completion_lengths:
                segments.append(Segment(at, length, self.path))
                at += length
            return tuple(segments)
        segments = [self.prompt]
        for length, (parent, fork) in zip(self.completion_lengths, self.forks, strict=True):
            above = segments[parent]
            segments.append(Segment(at, length, first_of((*above.context, (above.start, above.length)), fork)))
            at += length
        return tuple(segments[1:])

    @property
    def units(self) -> tuple[tuple[Segment, ...], ...]:
        """Completions of which something is fed, each with those that continue it: no unit sees another one."""
        if not self.forks:
            return tuple((each,) for each in self.completions if each.length)
        tops: list[int] = []
        for number, (parent, _) in enumerate(self.forks):
            tops.append(tops[parent - 1] if parent else number)
        units: dict[int, list[Segment]] = {}
        for top, segment in zip(tops, self.completions, strict=True):
            if segment.length:
                units.setdefault(top, []).append(segment)
        return tuple(tuple(unit) for unit in units.values())


def first_of(ranges: tuple[Range, ...], count: int) -> tuple[Range, ...]:
    """The first `count` tokens of some ranges."""
    kept = []
    for start, length in ranges:
        if count > 0 and length:
            kept.append((start, min(length, count)))
        count -= length
    return tuple(kept)
