"""What a spec's tests ask of a program: the names that tell it from the other blocks of a completion."""

from __future__ import annotations

import re

from rayzero.rewards.code.spec import AssertTest, CallTest, CodeSpec, OperationsTest, StdinTest

_CALL = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\s*\(")
_FROM = re.compile(r"^[ \t]*from[ \t]+\S+[ \t]+import[ \t]+(.+)$", re.MULTILINE)
_DEFINED = re.compile(r"^[ \t]*(?:def|class)\s+(\w+)", re.MULTILINE)


def bare(call: str) -> str:
    """`Solution().twoSum` is `twoSum`: drivers look into the class by themselves."""
    return call.removeprefix("Solution").removeprefix("()").removeprefix(".") if "." in call else call


def called_names(spec: CodeSpec) -> frozenset[str]:
    """Names that a program must define to be asked at all; empty where its input and output are compared."""
    names: set[str] = set()
    for test in spec.tests[:20]:
        if isinstance(test, CallTest):
            names.add(bare(test.call))
        elif isinstance(test, OperationsTest):
            names.add(test.operations[0])
        elif isinstance(test, AssertTest):
            entry_point = test.entry_point if test.entry_point is not None else spec.entry_point
            names |= {bare(entry_point)} if entry_point else _read(test.code)
    return frozenset(names)


def _read(code: str) -> set[str]:
    """By its form: names that the test calls or imports, and does not define."""
    imported = {name.split(" as ")[0].strip() for found in _FROM.findall(code) for name in found.strip("()").split(",")}
    return (set(_CALL.findall(code)) | imported) - set(_DEFINED.findall(code))


def reads_stdin(spec: CodeSpec) -> bool:
    """Whether its programs are given input."""
    return any(isinstance(test, StdinTest) and test.stdin.strip() for test in spec.tests)
