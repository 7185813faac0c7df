"""Switches the usage reports of the libraries off: a run connects to what its recipe names alone."""

from __future__ import annotations

import os

NO_REPORTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""Environment variables, before the libraries are imported."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Of processes that have everything they need on disk: transformers asks the hub about local models, too."""


def send_no_reports() -> None:
    """From this process and its children. What the user has set stays."""
    for name, value in NO_REPORTS.items():
        os.environ.setdefault(name, value)
