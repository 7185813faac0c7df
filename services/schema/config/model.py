"""Which model is trained, and in which precision both sides compute."""

from __future__ import annotations

from typing import Literal

from rayzero.services.schema.config.base import Section
from rayzero.services.schema.config.file_path import FilePath

AUTO = "auto"


class ModelSettings(Section):
    """The policy: where it comes from and what it computes in."""

    path: FilePath
    """A directory in Hugging Face format, a hub id, or a name built in: `smollm2-135m-instruct`, `tiny-addition`."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """What the learner and the engines compute in: one setting, for mismatched precisions look like off-policy data.
    `auto`: bfloat16 on GPUs and on CPUs that have instructions for it, float32 on CPUs that have none; chosen when a
    run begins, by the machine that the command runs on, and written into the run's recipe.yaml. A run that goes on
    keeps what it has. `float16` has three bits more than bfloat16, so that learner and engine agree more closely, and
    a smaller range: the loss is scaled so that no gradient falls below it, and a gradient beyond it is computed again
    at half the scale. Models whose activations leave that range (`gemma3_text`, `glm4`) are refused."""
