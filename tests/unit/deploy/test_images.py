"""The manual's pictures: all there, none left over, and small."""

from __future__ import annotations

import re
from pathlib import Path

from rayzero.services.observe.monitoring.dashboard_panels import DASHBOARDS

IMAGES = Path("docs/images")
LARGEST_BYTES = 200_000


def shown(page: Path) -> set[Path]:
    """Files that a page shows."""
    links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    return {(page.parent / link).resolve() for link in links if "://" not in link}


def test_every_picture_is_there_and_shown() -> None:
    pages = [*Path(".").glob("*.md"), *Path("docs").rglob("*.md")]
    drawn = {*IMAGES.iterdir(), *Path("docs/gallery").glob("*.svg")}
    assert set().union(*map(shown, pages)) == {path.resolve() for path in drawn}


def test_the_page_and_every_dashboard_are_in_the_manual() -> None:
    """Made by tests/integration/test_screens.py and test_operate.py; tests/README.md has the commands."""
    wanted = {"page-healthy-light", *(dashboard.uid for dashboard in DASHBOARDS)}
    assert wanted <= {path.stem for path in shown(Path("docs/guides/watching.md"))}


def test_pictures_are_small() -> None:
    assert all(path.stat().st_size < LARGEST_BYTES for path in IMAGES.iterdir())
