"""The kinds of stages: one line each."""

from __future__ import annotations

from collections.abc import Mapping

from rayzero.services.pipeline.context import StageKind
from rayzero.services.pipeline.evaluate import run_eval
from rayzero.services.pipeline.grpo import run_grpo
from rayzero.services.pipeline.rejection_sample import run_rejection_sample
from rayzero.services.pipeline.reward_model import run_reward_model
from rayzero.services.pipeline.sft import run_sft

KINDS: Mapping[str, StageKind] = {
    "sft": run_sft,
    "grpo": run_grpo,
    "rejection_sample": run_rejection_sample,
    "reward_model": run_reward_model,
    "distill": run_sft,
    "on_policy_distill": run_grpo,
    "eval": run_eval,
}
