"""`rayzero regrade`: which files are the newest, and what of a flip reaches the terminal."""

from __future__ import annotations

import io
from pathlib import Path

from rayzero.services.cli.regrade import Flip, _age, _print
from rayzero.services.schema.terminal import Terminal


def test_the_newest_files_are_those_of_the_last_updates() -> None:
    names = ("evaluation_000009", "update_999999", "update_1000000", "update_000002", "evaluation_000000")
    files = sorted((Path(f"{name}.jsonl") for name in names), key=_age)
    assert [file.stem for file in files] == [
        "evaluation_000000",
        "update_000002",
        "evaluation_000009",
        "update_999999",
        "update_1000000",
    ]


def test_a_flip_gives_the_terminal_no_command() -> None:
    hostile = "\x1b]0;owned\x07\x9b2J\u202e\ud800[/red]"
    flip = Flip(
        file="update_000001.jsonl",
        group_id=1,
        index=0,
        prompt_id=hostile,
        answer=hostile,
        completion=hostile,
        before=None,
        now=1.0,
        status_before="error",
        status_now="correct",
        reason=hostile,
    )
    stream = io.StringIO()
    _print(Terminal(file=stream, width=200, highlight=False), 1, 1, [flip])
    assert not set(stream.getvalue()) & {"\x1b", "\x07", "\x9b", "\u202e", "\ud800"}
    assert r"\x1b]0;owned" in stream.getvalue()
