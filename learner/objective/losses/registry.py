"""The losses by the name that a recipe gives them. A new loss is one file, its settings, one line here and its test."""

from __future__ import annotations

from rayzero.learner.objective.losses import cispo, dapo, dr_grpo, grpo, gspo, reinforce_plus_plus, rloo
from rayzero.learner.objective.losses.base import Loss

LOSSES: dict[str, Loss] = {
    "grpo": grpo.LOSS,
    "dr_grpo": dr_grpo.LOSS,
    "dapo": dapo.LOSS,
    "gspo": gspo.LOSS,
    "cispo": cispo.LOSS,
    "rloo": rloo.LOSS,
    "reinforce++": reinforce_plus_plus.LOSS,
}
