"""A real browser for the pages' tests: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDTH, HEIGHT = 1400, 1100


@contextmanager
def open_page(address: str) -> Iterator[tuple[Page, list[str]]]:
    """A page, and what it complains of: errors of its script, breaches of its policy, dialogs."""
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
            page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
            page.goto(address)
            yield page, complaints
        finally:
            browser.close()


def screenshot_file(name: str, otherwise: Path) -> Path:
    """Where a screenshot goes: RAYZERO_SCREENSHOTS (deploy/images, for the README) or the test's own folder."""
    return Path(os.environ.get("RAYZERO_SCREENSHOTS") or otherwise) / name
