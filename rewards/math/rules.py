"""The verifier's settings as plain values: a process that verifies one answer does not wait for pydantic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayzero.services.schema.config.math import Fallback, MathSettings, Strictness


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """The fields and defaults of `MathSettings`, which documents and checks them."""

    strictness: Strictness = "standard"
    fallbacks: tuple[Fallback, ...] = ()
    relative_tolerance: float = 0.0
    max_answer_chars: int = 2_000
    worked_out: bool = False


def rules_of(settings: MathSettings | Rules | None) -> Rules:
    """A recipe's settings as rules; None: the defaults."""
    if settings is None or isinstance(settings, Rules):
        return settings or Rules()
    return Rules(**settings.model_dump())
