from __future__ import annotations

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from rayzero.rewards.code.spec import CallTest, StdinTest, parse
from rayzero.services.data.formats import livecodebench
from rayzero.services.data.formats.livecodebench import read, unpacked
from rayzero.services.data.formats.problem import RowFault
from tests.published_rows import livecodebench as row


def packed(value: Any, protocol: int = 4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


class Hostile:
    """What a pickle may do when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_the_packed_text_is_read_at_every_protocol(protocol: int) -> None:
    text = json.dumps([{"input": "é" * 300, "output": "2", "testtype": "stdin"}], ensure_ascii=False)
    assert unpacked(packed(text, protocol), "it") == text


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    with pytest.raises(RowFault, match="only one that holds a text is read") as caught:
        unpacked(packed(Hostile(tmp_path / "done")), "column 'private_test_cases'")
    assert caught.value.kind == "refused" and not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (packed(["a", "b"]), "EMPTY_LIST"),
        (packed({"a": 1}), "EMPTY_DICT"),
        ("not base64!", "neither JSON nor packed"),
        (base64.b64encode(b"no zlib").decode(), "neither JSON nor packed"),
        (base64.b64encode(zlib.compress(b"no pickle")).decode(), "pickle"),
        (packed("[]")[:20], "neither JSON nor packed|cut off"),
    ],
)
def test_what_else_is_packed_is_refused(text: str, problem: str) -> None:
    with pytest.raises(RowFault, match=problem):
        unpacked(text, "it")


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livecodebench, "MAX_UNPACKED_BYTES", 10_000)
    with pytest.raises(RowFault, match="unpacks to more than"):
        unpacked(packed("x" * 100_000), "it")


def test_public_and_private_tests_are_one_spec_with_the_function_of_the_metadata() -> None:
    called, fed = parse(read(row(2)).answer), parse(read(row(1)).answer)
    assert len(called.tests) == len(fed.tests) == 5
    assert isinstance(called.tests[4], CallTest) and isinstance(fed.tests[4], StdinTest)
    assert (called.tests[4].call, called.tests[4].args, called.tests[4].expected) == ("total", [[2, 4], 4], 10)
    assert "class Solution" in read(row(2)).prompt
