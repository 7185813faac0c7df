"""One form for every message: what a user reads is written in one hand, says its units, and needs no textbook."""

from __future__ import annotations

import re

import pytest

from tests.messages import Message, messages
from tests.unit.test_house import WORDS

PROPER = {"Authorization", "DID", "GPU", "JSON", "KEY", "Landlock", "NCCL", "NVIDIA", "Python", "Ray", "TRL", "UTF-8"}
"""Names begin as they are written."""
SYMBOLS = (r"k[123]-KL", r"\bpi_\w+", "π", "ρ", r"\bESS\b", r"\bIS ratio", r"\bvs\b", r"\bw/o?\b", r"\baka\b")
"""A newcomer knows the figure by its name in metrics.jsonl, and what it means by the sentence."""
BLAMING = ("please", "sorry", "oops", "illegal", "you must", "you should", "unexpectedly", "something went wrong")
SPOKEN = [each for each in messages() if each.kind != "part"]
"""Whole messages, not what is put into one."""


def test_all_kinds_of_messages_are_found() -> None:
    kinds = {each.kind for each in messages()}
    assert {"raise", "print", "say", "warning", "echo", "part"} <= kinds and len(SPOKEN) > 900
    texts = [each.text for each in messages()]
    for known in ("few tokens carry the update", "is there already: name a directory", "nothing has moved for"):
        assert any(known in text for text in texts), known


def wrong(found: list[Message]) -> str:
    return "\n".join(map(str, found))


def test_a_message_begins_in_lower_case() -> None:
    """A command puts `error: ` before it, a run the update, a log its time."""
    first = re.compile(r"^(?:\[[\w/ ]+\])?\s*([A-Z][\w-]*)")
    found = [
        each
        for each in SPOKEN
        if (match := first.match(each.text)) and match[1] not in PROPER and not match[1].isupper()
    ]
    assert not found, wrong(found)


def test_a_message_ends_without_a_full_stop_and_never_shouts() -> None:
    found = [each for each in messages() if re.search(r"(?:[^.]\.|!|[ ,;:])$", each.text.rstrip("\n"))]
    found = [each for each in found if each.kind != "part" and not each.text.endswith(("\n", "Next:"))]
    assert not found, wrong(found)


@pytest.mark.parametrize("word", [*WORDS, *BLAMING])
def test_the_words_are_plain_and_blame_nobody(word: str) -> None:
    pattern = re.compile(rf"(?<![A-Za-z])(?:{word})(?![A-Za-z])", re.IGNORECASE)
    found = [each for each in messages() if pattern.search(each.text)]
    assert not found, wrong(found)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_no_symbol_stands_for_a_sentence(symbol: str) -> None:
    found = [each for each in messages() if re.search(symbol, each.text)]
    assert not found, wrong(found)


def test_numbers_have_their_units() -> None:
    """By the house's names: what ends in `_s` is seconds, in `_bytes` bytes. Beside a key of that ending it is said."""
    found = []
    for each in messages():
        for field in each.fields:
            name = field.expression.rpartition(".")[2]
            if re.search(r"_(?:s|bytes)(?: \(|: )$", field.before):
                continue
            if field.form and name.endswith("_s") and not re.match(r" s\b| seconds", field.after):
                found.append(each)
            if name.endswith("_bytes") and "(" not in field.expression and not re.match(r" bytes", field.after):
                found.append(each)
    assert not found, wrong(found)


def test_measured_figures_are_rounded() -> None:
    """`0.30000000000000004` is no number for a reader."""
    measured = re.compile(r"(?:_mean|_std|rate|ratio|accuracy|norm|loss)$")
    found = [each for each in SPOKEN for field in each.fields if measured.search(field.expression) and not field.form]
    assert not found, wrong(found)


def test_a_warning_says_what_to_do_or_what_happens_now() -> None:
    """The second half of the sentence: behind a colon, a semicolon, or as what the run does by itself."""
    found = [
        each
        for each in messages()
        if each.kind == "warn" and not re.search(r"[:;]", each.text)
    ]  # fmt: skip
    assert not found, wrong(found)
