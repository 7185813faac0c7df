"""docs/models.md says what tiny models of every family show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rayzero.services.planning.model_families import FAMILIES
from tests.model_families import VARIANTS
from tests.model_table import CHECKS, ENGINES, PAGE, page, verdicts


@pytest.mark.parametrize("kind", sorted(VARIANTS))
def test_every_family_that_is_accepted_passes_every_check(kind: str, tmp_path: Path) -> None:
    assert verdicts(kind, tmp_path) == dict.fromkeys(CHECKS, True)


def test_the_page_is_what_the_code_gives() -> None:
    accepted = {kind: dict.fromkeys(CHECKS, True) for kind in VARIANTS}
    assert PAGE.read_text(encoding="utf-8") == page(accepted), "run: python -m tests.model_table"


def test_no_family_is_accepted_without_being_compared() -> None:
    """With the learner's code, here, and with real engines."""
    measured = json.loads(ENGINES.read_text(encoding="utf-8"))["gaps"]
    assert set(VARIANTS) == set(measured) == set(FAMILIES)
    assert max(measured.values()) < 1e-4
