"""A real browser for the pages' tests: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Dialog, Page

WIDTH, HEIGHT = 1400, 1100
NUM_COLORS = 255


@contextmanager
def open_page(address: str) -> Iterator[tuple[Page, list[str]]]:
    """A page, and what it complains of: errors of its script, breaches of its policy, dialogs."""
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )

        def dismiss(dialog: Dialog) -> None:
            complaints.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
            page.on("dialog", dismiss)
            page.goto(address)
            yield page, complaints
        finally:
            browser.close()


def screenshot(page: Page, name: str, otherwise: Path, full_page: bool = False) -> None:
    """Written to RAYZERO_SCREENSHOTS (docs/images, for the README), else to the test's own folder; small enough to be
    committed."""
    file = Path(os.environ.get("RAYZERO_SCREENSHOTS") or otherwise) / name
    image = Image.open(io.BytesIO(page.screenshot(full_page=full_page))).convert("RGB")
    image.quantize(colors=NUM_COLORS, dither=Image.Dither.NONE).save(file, optimize=True)
