"""Usage reports are off unless the user turns them on."""

from __future__ import annotations

import os

import pytest

from rayzero.services.schema.reports import NO_REPORTS, send_no_reports


def test_reports_are_off_and_the_users_word_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NO_REPORTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", os.environ.copy())
        send_no_reports()
        assert {name: os.environ[name] for name in NO_REPORTS} == NO_REPORTS | {"VLLM_NO_USAGE_STATS": "0"}
