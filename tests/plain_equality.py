"""Whether what was written comes back whole: equal to the bit, and nothing left at its default unseen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import numpy as np


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, NaN and types included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if is_dataclass(one):
        return all(same(getattr(one, each.name), getattr(other, each.name)) for each in fields(one))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other or (one != one and other != other))


def unsaid(kind: Any, values: Iterable[Any]) -> list[str]:
    """Fields that all `values` leave at their default: one that a writer forgot comes back so, and none could tell."""
    values, defaults = list(values), {each.name: each.default for each in fields(kind)}
    defaults |= {each.name: each.default_factory() for each in fields(kind) if each.default_factory is not MISSING}
    return [
        name
        for name, default in defaults.items()
        if default is not MISSING and all(same(getattr(value, name), default) for value in values)
    ]
