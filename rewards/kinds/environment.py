"""What an environment says of an episode itself: its `get_reward`, as one component of a rubric."""

from __future__ import annotations

from rayzero.rewards.base import Case, PureReward, Score, failed, scored
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.reward_components import EnvironmentComponent
from rayzero.services.schema.episodes import EpisodeEnd

LATE = (EpisodeEnd.STEP_DEADLINE, EpisodeEnd.EPISODE_DEADLINE)


class EnvironmentReward(PureReward):
    """The environment's number as it is; none where it gave none."""

    def __init__(self, settings: EnvironmentComponent) -> None:
        self.settings = settings

    def judge(self, case: Case) -> Score:
        """The score of one episode. One that was killed for its deadline can say nothing: an error, never a 0."""
        outcome = case.outcome
        if outcome is None:
            return failed(ErrorCause.BAD_PROMPT, "it is no episode: no environment has seen it")
        if outcome.reward is None and outcome.end in LATE:
            return failed(ErrorCause.DEADLINE, outcome.reason)
        given = "" if outcome.reward is not None else "no reward was given; "
        return scored(outcome.reward, full=self.settings.full_score, reason=f"{given}ended as {outcome.end}")
