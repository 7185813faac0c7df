"""The committed reference is the one that the settings write."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.cli.recipe_reference import markdown, section
from rayzero.services.schema.errors import UsageError


def test_the_committed_reference_is_up_to_date() -> None:
    committed = Path("deploy/recipes/README.md").read_text(encoding="utf-8")
    assert committed == markdown(), "run: rayzero recipe > deploy/recipes/README.md"


def test_every_key_is_documented() -> None:
    undocumented = [line for line in markdown().splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert [line for line in undocumented if not line.startswith(("| `kind`", "| `name`"))] == []


def test_a_section_is_shown_alone_with_all_its_variants() -> None:
    watch = section("learner.watch")
    assert watch.startswith("## learner.watch\n") and watch.count("## ") == 1 and "`min_tokens`" in watch
    assert section("learner.loss").count("## learner.loss (name: ") > 5
    assert "Sections in it: learner.loss, " in section("learner")


def test_a_section_that_there_is_not_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"did you mean learner\.watch\? there are: learner, learner\.loss, "):
        section("learner.wach")
    with pytest.raises(UsageError, match=r"there are: model, .*training"):
        section("zzz")
