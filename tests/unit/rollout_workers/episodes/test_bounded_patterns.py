"""Patterns of other packages end in time, wherever their modules keep them, and find what they found before."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from rayzero.rollout_workers.episodes.bounded_patterns import SEARCH_S, bound_patterns

SOURCE = r"""
import regex as re
from regex import compile as made

AT_TOP = re.compile(r"<a>(.*)<b>(.*)<c>(.*)<d>")

class Base:
    of_class = re.compile(r"<a>(.*)<b>(.*)<c>(.*)<d>")

class Parser(Base):
    def __init__(self):
        self.own = re.compile(r"<a>(.*)<b>(.*)<c>(.*)<d>", re.DOTALL)

    def searches(self, text):
        yield lambda: self.own.findall(text)
        yield lambda: list(self.own.finditer(text))
        yield lambda: self.of_class.search(text)
        yield lambda: AT_TOP.sub("", text)
        yield lambda: re.search(r"<a>(.*)<b>(.*)<c>(.*)<d>", text)
        yield lambda: re.findall(self.own, text)
        yield lambda: re.split(AT_TOP, text)

    def own_timeout(self, text):
        return self.own.search(text, timeout=0.01)
"""
HOSTILE = "<a><b><c>" * 1000


@pytest.fixture
def parser() -> Iterator[Any]:
    module: Any = ModuleType("planted_package.planted")
    sys.modules["planted_package.planted"] = module
    exec(SOURCE, vars(module))
    bound_patterns(module.Parser)
    bound_patterns(module.Parser)  # twice: a parser is made for each set of tools
    yield module.Parser()
    del sys.modules["planted_package.planted"]


def test_no_search_takes_long(parser: Any) -> None:
    for search in parser.searches(HOSTILE):
        began = time.process_time()
        with pytest.raises(TimeoutError):
            search()
        assert time.process_time() - began < SEARCH_S + 2
    with pytest.raises(TimeoutError):
        parser.own_timeout(HOSTILE)


def test_what_is_found_stays_the_same(parser: Any) -> None:
    found = [search() for search in parser.searches("x<a>1<b>2<c>3<d>y")]
    assert found[0] == found[5] == [("1", "2", "3")] and found[1][0].group(2) == "2"
    assert found[2].groups() == found[4].groups() == ("1", "2", "3")
    assert found[3] == "xy" and found[6] == ["x", "1", "2", "3", "y"]
    assert parser.own.pattern == "<a>(.*)<b>(.*)<c>(.*)<d>" and parser.own.flags
