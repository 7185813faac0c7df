"""The kinds of stages: one line each."""

from __future__ import annotations

from collections.abc import Mapping

from services.stages.context import StageKind
from services.stages.evaluate import run_eval
from services.stages.grpo import run_grpo
from services.stages.rejection_sample import run_rejection_sample
from services.stages.reward_model import run_reward_model
from services.stages.sft import run_sft

KINDS: Mapping[str, StageKind] = {
    "sft": run_sft,
    "grpo": run_grpo,
    "rejection_sample": run_rejection_sample,
    "reward_model": run_reward_model,
    "distill": run_sft,
    "on_policy_distill": run_grpo,
    "eval": run_eval,
}
