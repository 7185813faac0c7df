"""What the children of the reward benchmark do: verify as in training, or hang on demand."""

from __future__ import annotations

import time
from collections.abc import Callable

from rayzero.rewards.children.work import math_verifier
from rayzero.rewards.math.rules import Rules, rules_of

ASLEEP, SPINNING = "asleep", "spinning"


def verifier(settings: Rules | None) -> Callable[[tuple[str, str]], tuple[bool, str]]:
    """Grades `(completion, gold)`; hangs in C code where the gold says so."""
    grade = math_verifier(rules_of(settings))

    def work(item: tuple[str, str]) -> tuple[bool, str]:
        if item[1] == ASLEEP:
            time.sleep(3600)
        if item[1] == SPINNING:
            7**400_000_000 % 10  # one call in C, which no signal handler interrupts
        correct, reason, _ = grade((*item, False, None))
        return correct, reason

    return work
