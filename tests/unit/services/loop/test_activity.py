"""What a run does right now: several phases at a time, each from its own beginning."""

from __future__ import annotations

import pytest

from rayzero.services.loop.activity import Activity, Phase


def test_phases_overlap_and_end_also_by_a_failure() -> None:
    now, begun = [0.0], list[Phase]()
    activity = Activity(clock=lambda: now[0], listeners=[begun.append])
    with activity(Phase.EVALUATION):
        now[0] = 2.0
        with pytest.raises(RuntimeError), activity(Phase.UPDATE):
            now[0] = 5.0
            assert activity.seconds() == {Phase.EVALUATION: 5.0, Phase.UPDATE: 3.0}
            raise RuntimeError
        assert activity.seconds() == {Phase.EVALUATION: 5.0}
    assert activity.seconds() == {} and begun == [Phase.EVALUATION, Phase.UPDATE]
