"""What varies: `key=a,b` on the command line ─► every combination, each with its name and its overrides."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rayzero.services.schema.errors import UsageError

SEED = "seed"
MAX_NAME = 100
"""Characters of a member's directory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """One value of everything that varies."""

    values: tuple[tuple[str, str], ...]
    """(key, value) in the order of the command line."""
    fixed: tuple[str, ...]
    """Overrides that all have."""

    @property
    def overrides(self) -> list[str]:
        """As `rayzero train` takes them."""
        return [*self.fixed, *(f"{key}={value}" for key, value in self.values)]

    @property
    def name(self) -> str:
        """For people: `seed=0, learning_rate=1e-5`."""
        return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.values)

    @property
    def folder(self) -> str:
        """The same, as a directory: another one for every combination."""
        parts = (f"{key.rpartition('.')[2]}-{value}" for key, value in self.values)
        return re.sub(r"[^A-Za-z0-9.+_-]+", "_", "_".join(parts))[:MAX_NAME]

    @property
    def setting(self) -> str:
        """Its name without the seed: members that share it are repetitions. Empty where seeds alone vary."""
        return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.values if key != SEED)


def combinations(arguments: Sequence[str]) -> tuple[Combination, ...]:
    """Every combination of `key=value,value`; a key with one value is the same for all.

    Raises:
        UsageError: an argument is none, nothing varies, or two combinations would share a directory.
    """
    varied: list[list[tuple[str, str]]] = []
    fixed: list[str] = []
    for argument in arguments:
        key, separator, text = argument.partition("=")
        key = key.strip()
        values = list(_split(text))
        if not separator or not key or not all(values):
            raise UsageError(f"{argument!r}: write it as key=value,value, e.g. seed=0,1,2")
        if any(key == other for axis in varied for other, _ in axis[:1]) or f"{key}=" in {
            f"{other.partition('=')[0]}=" for other in fixed
        }:
            raise UsageError(f"{key} is given twice: give all its values at once, e.g. {key}={values[0]},…")
        if len(set(values)) < len(values):
            raise UsageError(f"{argument!r}: a value stands there twice: remove one")
        if len(values) > 1:
            varied.append([(key, value) for value in values])
        else:
            fixed.append(f"{key}={values[0]}")
    if not varied:
        raise UsageError("nothing varies: give a key several values, e.g. seed=0,1,2; rayzero train is for one run")
    found = tuple(Combination(values=values, fixed=tuple(fixed)) for values in itertools.product(*varied))
    folders = [each.folder for each in found]
    if len(set(folders)) < len(folders):
        raise UsageError("two combinations would have the same directory: give fewer values at once, or shorter ones")
    return found


def _split(text: str) -> Iterator[str]:
    """At the commas that stand in no bracket and no quotes: `[0.9,0.95],[0.9,0.98]` is two values."""
    depth, quote, start = 0, "", 0
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        elif character == "," and depth == 0:
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()
