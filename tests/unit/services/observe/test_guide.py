"""Advice of the guide, by topic."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.observe import guide


def test_a_topic_is_a_heading_and_its_text_is_plain() -> None:
    text = guide.advice("entropy-collapse")
    assert text.startswith("entropy falls to 0") and "learner.loss.clip_high" in text
    assert guide.advice("held-out-accuracy-fell").endswith("see the reward fell."), "links are text"
    assert guide.advice("nothing-of-the-kind") == ""


def test_without_the_guide_there_is_no_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("rayzero.services.observe.guide.resources.files", lambda name: tmp_path)
    guide._advice.cache_clear()
    try:
        assert guide.advice("entropy-collapse") == ""
    finally:
        guide._advice.cache_clear()
