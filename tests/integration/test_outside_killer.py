"""Minutes of SIGKILL to random processes of a run's own tree: nothing is lost and nothing doubled."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from rayzero.services.store.ledger import audit
from tests.outside_killer import storm

MINUTES = float(os.environ.get("RAYZERO_STORM_MINUTES", "5"))

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def test_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    seen = storm(tmp_path / "run", MINUTES, seed, tmp_path / "driver.out")
    print(f"seed {seed}: {seen}")
    assert seen.kills.total() >= 3
    assert seen.stopped_with == 130, (tmp_path / "driver.out").read_text()[-2000:]
    found = audit(tmp_path / "run")
    assert found.is_sound, found
