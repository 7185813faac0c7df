"""Which of an episode's turns is credited with what: `learner.credit`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rayzero.services.schema.config.base import Section


class EpisodeCredit(Section):
    """Every turn has the episode's advantage."""

    name: Literal["episode"] = "episode"


class _TurnCredit(Section):
    discount: float = Field(default=1.0, gt=0, le=1)
    """What a reward is worth one turn earlier."""


class DiscountedCredit(_TurnCredit):
    """A turn is credited with its own reward and all later ones, discounted. What the turns' rewards leave of the
    episode's reward is the last turn's, so that with discount 1 the first turn has the episode's reward."""

    name: Literal["discounted"] = "discounted"


class ProgressCredit(_TurnCredit):
    """As `discounted`, where a turn's reward says how far the episode has come: a turn's own is what it added."""

    name: Literal["progress"] = "progress"


CreditSettings = Annotated[EpisodeCredit | DiscountedCredit | ProgressCredit, Field(discriminator="name")]
