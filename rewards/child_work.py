"""What child processes do: factories that `ChildPool` names, each returning the function for one item.

Imports little: this runs in every child. The heavy modules come by `preload`, once, in the zygote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def math_verifier(settings: Any) -> Callable[[tuple[str, str]], tuple[bool, str]]:
    """Compares `(completion, gold answer)`; returns whether they agree and why."""
    from rewards.math.verify import verify

    def grade(item: tuple[str, str]) -> tuple[bool, str]:
        verdict = verify(item[0], item[1], settings)
        return verdict.correct, verdict.reason

    return grade
