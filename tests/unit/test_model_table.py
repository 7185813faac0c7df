"""docs/models.md says what tiny models of every family show."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.planning.model_families import FAMILIES
from tests.model_families import VARIANTS
from tests.model_table import PAGE, page, verdicts

_FOUND: dict[str, dict[str, bool]] = {}


@pytest.mark.parametrize("kind", sorted(VARIANTS))
def test_every_family_that_is_accepted_passes_every_check(kind: str, tmp_path: Path) -> None:
    _FOUND[kind] = verdicts(kind, tmp_path)
    assert all(_FOUND[kind].values()), _FOUND[kind]


def test_the_page_is_what_the_code_gives() -> None:
    accepted = {kind: dict.fromkeys(("learner exact", "engine names", "LoRA", "plan"), True) for kind in VARIANTS}
    assert PAGE.read_text(encoding="utf-8") == page(accepted), "run: python -m tests.model_table"


def test_no_family_is_accepted_without_being_compared() -> None:
    assert set(VARIANTS) == set(FAMILIES) - {"gemma2"}
