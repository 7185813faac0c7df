"""The folder that a child process needs on its path to import rayzero."""

from __future__ import annotations

from pathlib import Path

IMPORT_ROOT = Path(__file__).absolute().parents[3]
"""A checkout, or site-packages. Not resolved: in a checkout rayzero/services is a link to the folder beside it, and the
parent of what it points to holds no package `rayzero`."""
