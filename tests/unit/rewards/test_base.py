"""Scores: what may stand in a reason."""

from __future__ import annotations

import json

import pytest

from rayzero.rewards.base import MAX_REASON_CHARS, failed, scored
from rayzero.services.schema.causes import ErrorCause


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d", "\udc80" * 10, "x" * 10**6, "\ud800" * 10**5, "é中"])
def test_a_reason_is_valid_unicode_of_bounded_length(text: str) -> None:
    for score in (scored(0.0, reason=text), scored(None, reason=text), failed(ErrorCause.EXCEPTION, text)):
        assert json.loads(json.dumps(score.reason, ensure_ascii=False).encode("utf-8")) == score.reason
        assert 0 < len(score.reason) <= 6 * MAX_REASON_CHARS


def test_a_number_that_no_float_holds_is_an_error_and_not_written_out() -> None:
    for value in (float("nan"), float("inf"), 10**400, -(10**4000)):
        score = scored(value)
        assert score.cause is ErrorCause.NOT_FINITE and len(score.reason) < 100


def test_what_can_be_read_stays_as_it_is() -> None:
    assert scored(1.0, reason="42 equals 42 · é中").reason == "42 equals 42 · é中"
