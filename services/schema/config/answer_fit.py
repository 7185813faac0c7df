"""Which rubrics can judge which source: an answer compared with the gold must have the gold's meaning.

A puzzle such as countdown states the number to reach in its prompt. Its gold is an expression worth that number, and a
reward that compares values takes the copied number for the solution.
"""

from __future__ import annotations

from collections.abc import Mapping

from rayzero.services.schema.config.data import DataSource, ReasoningGymSource
from rayzero.services.schema.config.reward_components import AnyComponent

COMPARES = {"math", "exact", "choice"}
"""Kinds that hold the answer against the gold, and know nothing of the task."""

VALUE_TASKS = frozenset({
    "aiw", "basic_arithmetic", "binary_alternation", "chain_sum", "circuit_logic", "count_bits", "count_primes",
    "decimal_arithmetic", "decimal_chain_sum", "dice", "gcd", "gsm_symbolic", "largest_island", "lcm", "leg_counting",
    "letter_counting", "maze", "number_format", "number_sequence", "products", "rectangle_count", "rotten_oranges",
    "self_reference", "simple_equations", "simple_geometry",
})  # fmt: skip
"""Tasks of reasoning-gym whose answer is one number, and no other answer is right."""


def check_answers_fit(source: DataSource, rubric: Mapping[str, AnyComponent]) -> None:
    """Raise ValueError for a reasoning-gym task with more right answers than its gold, judged against the gold."""
    if not isinstance(source, ReasoningGymSource) or source.task in VALUE_TASKS:
        return
    for name, component in rubric.items():
        if component.kind in COMPARES:
            raise ValueError(
                f"reward.rubrics: {name} (kind: {component.kind}) compares answers of data source {source.name!r} with "
                f"one gold answer, and the task {source.task} has others: a copied number may pass, a right solution "
                f"may not. Give the source a rubric of its own, e.g. {source.name}: {{{name}: {{kind: reasoning_gym}}}}"
            )
