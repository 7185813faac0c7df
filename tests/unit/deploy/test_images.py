"""The READMEs' pictures: all there, none left over, and small."""

from __future__ import annotations

import re
from pathlib import Path

from rayzero.services.observe.monitoring.dashboard_panels import DASHBOARDS

IMAGES = Path("deploy/images")
LARGEST_BYTES = 200_000


def shown(readme: Path) -> set[Path]:
    """Files that a README shows."""
    links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme.read_text(encoding="utf-8"))
    return {(readme.parent / link).resolve() for link in links if "://" not in link}


def test_every_picture_is_there_and_shown() -> None:
    readmes = [path for top in (".", "deploy", "services", "learner", "tests") for path in Path(top).glob("README.md")]
    readmes += Path("services").glob("*/README.md")
    assert set().union(*map(shown, readmes)) == {path.resolve() for path in IMAGES.iterdir()}


def test_the_page_and_every_dashboard_are_in_the_readme() -> None:
    """Made by tests/integration/test_operate.py; tests/README.md has the command."""
    wanted = {"page", *(dashboard.uid for dashboard in DASHBOARDS)}
    assert wanted <= {path.stem for path in shown(Path("README.md"))}


def test_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in IMAGES.iterdir()}
    assert {name: size for name, size in sizes.items() if size > LARGEST_BYTES} == {}
