"""The catalogue's words hold the limits that the code has."""

from __future__ import annotations

import pytest

from rayzero.services.observe.figures import UPDATE_FIGURES
from rayzero.services.observe.guide import advice
from rayzero.services.schema.config.learner import WatchSettings

WORRY = {figure.name: figure.worry for figure in UPDATE_FIGURES}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_limits_of_the_kl_are_said_by_precision(dtype: str) -> None:
    warn, stop = WatchSettings().kl_limits(dtype)
    before, _, after = WORRY["kl_rollout_fresh"].partition("`kl_stop`")
    assert f"{warn:g} in {dtype}" in before and f"{stop:g} in {dtype}" in after


def test_the_limits_of_the_effective_sample_size_are_said() -> None:
    watch = WatchSettings()
    assert f"`learner.watch.ess_warn` ({watch.ess_warn:g})" in WORRY["ess"]
    assert f"`ess_stop` ({watch.ess_stop:g}) the run halts" in WORRY["ess"]
    guide = advice("engine-and-learner-disagree")
    assert f"under {watch.ess_warn:g} (a warning; under {watch.ess_stop:g} the run halts)" in guide


def test_what_has_staleness_in_it_stops_nothing() -> None:
    (figure,) = (each for each in UPDATE_FIGURES if each.name == "kl_rollout")
    assert "no limit of its own" in figure.meaning and "halts" not in figure.worry
    assert "no limit of its own" in advice("engine-and-learner-disagree")
