"""A hook of mkdocs: in the built site a link to a file of the repository is its label, for the site has no such file;
a label that is the file's name alone becomes its path.

tests/unit/test_manual.py holds that the file is there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page's text, without links that leave the manual."""
    folder = (DOCS / page.file.src_uri).parent

    def kept(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        if target.is_relative_to(DOCS):
            return match[0]
        return f"`{target.relative_to(DOCS.parent)}`" if match[1] == target.name else match[1]

    return LINK.sub(kept, markdown)
