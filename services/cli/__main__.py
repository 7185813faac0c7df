"""Refuses `python -m services.cli`, which was the way in before everything was installed as one package."""

from __future__ import annotations

import sys

print("error: `python -m services.cli` is `python -m rayzero` now", file=sys.stderr)
sys.exit(2)
