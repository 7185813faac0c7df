"""The losses that a recipe may name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rayzero.learner.objective.losses.cispo import CispoLoss
from rayzero.learner.objective.losses.custom import CustomLoss
from rayzero.learner.objective.losses.dapo import DapoLoss
from rayzero.learner.objective.losses.dr_grpo import DrGrpoLoss
from rayzero.learner.objective.losses.grpo import GrpoLoss
from rayzero.learner.objective.losses.gspo import GspoLoss
from rayzero.learner.objective.losses.reinforce_plus_plus import ReinforcePlusPlusLoss
from rayzero.learner.objective.losses.rloo import RlooLoss
from rayzero.learner.objective.losses.sapo import SapoLoss

LossSettings = Annotated[
    GrpoLoss  # one name a line: a further one is a further line
    | DrGrpoLoss
    | DapoLoss
    | GspoLoss
    | CispoLoss
    | RlooLoss
    | ReinforcePlusPlusLoss
    | SapoLoss
    | CustomLoss,
    Field(discriminator="name"),
]
