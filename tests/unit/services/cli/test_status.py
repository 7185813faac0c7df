"""`rayzero status`: what it prints of a run's state."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from rayzero.services.cli.status import _render
from tests.unit.services.observe.api.kit import Watched


async def test_a_run_at_a_glance(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.go()
    for update in (1, 2):
        watched.view.events.record("warning", update=update, text="all rewards are equal")
    status = watched.view.status()
    starting = {**status["workers"][0], "worker": "rollout-9", "policy_version": None, "lag_versions": None}
    status["workers"].append(starting | {"node": "0123456789abcdef"})
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(_render(status, 120))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["rollout-0", "serving", "0", "3", "0", "–"] in lines
    assert next(line for line in lines if line[:1] == ["rollout-9"])[3:] == ["–", "–", "01234567"]
    assert lines[-1][1:] == ["warning", "all", "rewards", "are", "equal", "(×2)"]
    narrow = Console(width=40, record=True, file=io.StringIO())
    narrow.print(_render(status, 40))
    text = narrow.export_text()
    assert "…" not in text and max(map(len, text.splitlines())) <= 40
    assert [word for word in ("rollout-0", "serving", "version", "0.500") if word not in text] == []
    assert "".join(str(watched.view.directory.path).split()) in "".join(text.split()), "folded, not cut off"
