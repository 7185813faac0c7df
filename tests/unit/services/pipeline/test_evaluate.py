"""The eval stage's expectations: a task that no longer is what the pipeline says ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.pipeline.evaluate import unmet_expectations
from rayzero.services.schema.config.pipeline import EvalStage
from tests.unit.services.pipeline.kit import PIPELINE, refusal

RESULTS = {"cold": {"sums": {"greedy": {"mean": 0.2}, "accuracy": {"mean": 0.5}, "num_errors": 0}}}


@pytest.mark.parametrize(
    ("expected", "unmet"),
    [
        ({"greedy": {"max": 0.2}, "accuracy": {"min": 0.5, "max": 0.6}}, []),
        ({"greedy": {"max": 0.15}}, ["cold: greedy is 0.200, more than 0.15"]),
        ({"accuracy": {"min": 0.75}}, ["cold: accuracy is 0.500, less than 0.75"]),
        ({"pass@16": {"min": 0.9}}, ["cold: there is no pass@16; there are: greedy, accuracy"]),
        ({"num_errors": {"max": 0}}, ["cold: there is no num_errors; there are: greedy, accuracy"]),
    ],
)
def test_what_lies_outside_of_its_bounds_is_named(expected: dict[str, dict[str, float]], unmet: list[str]) -> None:
    settings = EvalStage.model_validate({"kind": "eval", "models": ["cold"], "expect": {"cold": expected}})
    assert unmet_expectations(settings, RESULTS) == unmet


def test_all_sources_together_are_what_counts() -> None:
    settings = EvalStage.model_validate({"models": ["a"], "expect": {"a": {"greedy": {"min": 0.5}}}})
    both = {"a": {"all": {"greedy": {"mean": 0.6}}, "sums": {"greedy": {"mean": 0.1}}}}
    assert not unmet_expectations(settings, both)


def test_a_model_that_is_not_measured_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, PIPELINE, "stages.measured.expect={clod: {greedy: {max: 0.1}}}")
    assert "expect.clod: it is none of `models` (base, cold, final)" in message
