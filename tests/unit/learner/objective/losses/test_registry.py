"""A new loss is one file and one line: added to a copy of the tree, a recipe names it and the learner computes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.source_tree import LAYERS, ROOT

FILE = '''\
"""Plain REINFORCE."""

from __future__ import annotations

from typing import ClassVar, Literal

from rayzero.learner.objective.advantage import AdvantageName
from rayzero.learner.objective.losses.base import BatchShape, Loss, TokenLosses, Tokens, TokenWeights, mean_of_tokens


class PlainLoss(Loss):
    """REINFORCE as in 1992."""

    name: Literal["plain"] = "plain"
    published_advantage: ClassVar[AdvantageName] = "mean_centred"
    scale: float = 1.0
    """What every value is multiplied with."""

    def token_losses(self, tokens: Tokens) -> TokenLosses:
        values = -self.scale * tokens.token_advantages * tokens.policy_logprobs
        return TokenLosses(values=values, clipped=values.new_zeros(values.shape).bool())

    def token_weights(self, shape: BatchShape) -> TokenWeights:
        return mean_of_tokens(shape)
'''
USE = """
import sys
from rayzero.services.cli.recipe_reference import markdown
from rayzero.services.schema.config.loader import load_recipe
settings = load_recipe("demo.yaml", ["learner.loss={name: plain, scale: 2}"]).learner
assert settings.advantage_name == "mean_centred"
assert "REINFORCE as in 1992." in markdown() and "What every value is multiplied with." in markdown()
assert "torch" not in sys.modules
import torch
from rayzero.learner.objective.loss import LossInputs, microbatch_loss
zeros, ones = torch.zeros(2), torch.ones(2)
inputs = LossInputs(policy_logprobs=-ones, entropies=zeros, old_logprobs=-ones, rollout_logprobs=-ones,
    reference_logprobs=None, samples=torch.tensor([0, 1]), advantages=torch.tensor([1.0, 3.0]), token_weights=ones / 2)
print(microbatch_loss(inputs, settings).loss.item())
"""


def test_a_loss_is_one_file_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "rayzero").mkdir()
    shutil.copy(ROOT / "rayzero/__init__.py", tmp_path / "rayzero")
    for layer in LAYERS:
        only_source = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / layer, tmp_path / "rayzero" / layer, ignore=only_source)
    shutil.copy(ROOT / "deploy/recipes/demo.yaml", tmp_path)
    losses = tmp_path / "rayzero/learner/objective/losses"
    (losses / "plain.py").write_text(FILE, encoding="utf-8")
    registry = (losses / "registry.py").read_text(encoding="utf-8")
    added = registry.replace("| CustomLoss", "| PlainLoss | CustomLoss").replace(
        "\nLossSettings", "from rayzero.learner.objective.losses.plain import PlainLoss\nLossSettings"
    )
    assert added.count("PlainLoss") == 2
    (losses / "registry.py").write_text(added, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) == 2 * (0.5 * 1.0 + 0.5 * 3.0)
