"""The skips themselves: a missing program must never pass silently in CI."""

from __future__ import annotations

import pytest

from tests.system import check_needs, is_there, needs, skipped_line, smallest_sets


def test_finds_programs_and_modules() -> None:
    assert is_there("sh")
    assert is_there("json")
    assert not is_there("no-such-program")


def test_skips_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYZERO_CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        check_needs("sh", "no-such-program")


def test_is_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYZERO_CI", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        check_needs("no-such-program")


def test_podman_may_be_missing_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYZERO_CI", "1")
    monkeypatch.setattr("tests.system.is_there", lambda name: False)
    with pytest.raises(pytest.skip.Exception):
        check_needs("podman")


@needs("sh")
def test_the_mark_lets_a_test_run() -> None:
    pass


def test_what_was_skipped_is_one_line_that_says_how_to_run_it() -> None:
    lacks = "not on this machine: chromium, playwright (make setup-system installs programs, make setup modules)"
    more = f"('/t/test_page.py', 27, 'Skipped: {lacks}; 12 tests more want it')"
    line = skipped_line(
        [more, f"('/t/test_b.py', 2, 'Skipped: {lacks}')", "('/t/test_x.py', 3, 'Skipped: no IPv6 here')"]
    )
    assert line.startswith("15 tests skipped (14 want chromium, playwright; 1: no IPv6 here); `make setup-system`")
    several = skipped_line(["('/t/test_x.py', 3, 'Skipped: no IPv6 here')"], {"no IPv6 here": 4})
    assert several.startswith("5 tests skipped (5: no IPv6 here)")
    assert skipped_line([]) == "" and "\n" not in line


def test_one_test_says_it_for_all_that_lack_the_same_or_more() -> None:
    lacking = {"a": {"podman", "runc"}, "b": {"podman"}, "c": {"podman"}, "d": set[str](), "e": {"node", "npm"}}
    assert smallest_sets(lacking) == {"a": "b", "b": "b", "c": "b", "e": "e"}
    assert smallest_sets({"d": set[str]()}) == {}
