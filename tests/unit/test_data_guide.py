"""docs/data.md: its YAML is valid, and every format has its block."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from rayzero.services.data.formats.registry import FORMATS
from rayzero.services.schema.config.data import DataSettings
from rayzero.services.schema.config.reward import RewardSettings
from tests.source_tree import ROOT

BLOCKS = re.findall(
    r"^```yaml\n(.*?)^```", (ROOT / "docs/data.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_blocks_are_settings(block: str) -> None:
    values: dict[str, Any] = yaml.safe_load(block)
    (DataSettings if "train" in values else RewardSettings).model_validate(values)


def test_every_format_has_its_block() -> None:
    shown = {source.get("format") for block in BLOCKS for source in yaml.safe_load(block).get("train", ())}
    assert shown - {None} == set(FORMATS)
