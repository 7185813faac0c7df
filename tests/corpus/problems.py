"""The problems that the corpus' programs are held against, and the reader of its files.

A file holds programs one after the other, each under `=== name | problem` (or `=== name | problem | language`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
LIMITS = {"time_limit_s": 1.0, "wall_limit_s": 3.0}

_HUMANEVAL = """
METADATA = {}

def check(candidate):
    assert candidate(1, 2) == 3
    assert candidate(10, -4) == 6
    for i in range(20):
        assert candidate(i, i) == 2 * i, "doubles"

check(add)
"""
_PRELUDE_POLY = '''
import math

def poly(xs: list, x: float):
    """Evaluates a polynomial."""
    return sum(coeff * math.pow(x, i) for i, coeff in enumerate(xs))

def find_zero(xs: list):
    """A zero of the polynomial."""
'''

PROBLEMS: Mapping[str, dict[str, Any]] = {
    "sum": {"tests": [{"stdin": "1 2\n", "expected": "3\n"}, {"stdin": "10 -4\n", "expected": "6\n"}]},
    "leave": {"tests": [{"stdin": "1 2\n", "expected": "3\n"}, {"stdin": "1 2\n", "expected": "3\n"}], "early_exit":
    False},
    "echo": {"tests": [{"stdin": "abc\ndef\n", "expected": "abc\ndef\n"}, {"stdin": "x\n\ny\n", "expected":
    "x\n\ny\n"}]},
    "sort": {"tests": [{"stdin": "3 1 2\n", "expected": "1 2 3\n"}, {"stdin": "5 5 -1 0\n", "expected": "-1 0 5 5\n"}]},
    "floats": {"tests": [{"stdin": "2\n", "expected": "1.414213562\n"}], "checker": {"float_tolerance": 1e-6}},
    "primes": {"tests": [{"stdin": "20\n", "expected": "2 3 5 7 11 13 17 19\n"}], "checker": "tokens"},
    "large": {"tests": [{"stdin": "200000\n", "expected": "".join(f"{i}\n" for i in range(200000))}]},
    "call": {"tests": [{"call": "add", "args": [1, 2], "expected": 3}, {"call": "add", "args": [10, -4], "expected":
    6}]},
    "call_one": {"tests": [{"call": "one", "args": [], "expected": 1}]},
    "two_sum": {
        "tests": [
            {"call": "twoSum", "args": [[2, 7, 11, 15], 9], "expected": [0, 1]},
            {"call": "twoSum", "args": [[3, 2, 4], 6], "expected": [1, 2]},
        ]
    },
    "words": {"tests": [{"call": "shout", "args": [["a", "bé"]], "expected": ["A!", "BÉ!"]}]},
    "mean": {"tests": [{"call": "mean", "args": [[1.0, 2.0, 4.5]], "expected": 2.5}]},
    "dict": {"tests": [{"call": "table", "args": [1], "expected": {"1": 1}}]},
    "checker": {"tests": [{"stdin": "", "expected": "0.5"}], "checker": {
        "custom": "def check(input, output, expected): return abs(float(output) - float(expected)) < 1e-6"}},
    "assert_map": {"tests": [{"assert": "cases = [((1, 2), 3), ((10, -4), 6)]\n"
                                        "assert all(map(lambda c: add(*c[0]) == c[1], cases))"}]},
    "assert_zip": {"tests": [{"assert": "for got, want in zip(map(lambda n: add(n, n), [1, 2]), [2, 4]):\n"
                                        "    assert got == want"}]},
    "zeroes": {"tests": [{"call": "moveZeroes", "args": [[0, 1, 0, 3]], "expected": [1, 3, 0, 0], "argument": 0}]},
    "groups": {"tests": [{"call": "group", "args": [["ab", "ba", "c"]], "expected": [["ab", "ba"], ["c"]]}],
               "checker": "unordered"},
    "assert": {"tests": [{"assert": "assert add(1, 2) == 3"}, {"assert": "add(10, -4) == 6"}]},
    "assert_truth": {"tests": [{"assert": "assert is_even(4)"}, {"assert": "assert not is_even(3)"}]},
    "assert_float": {"tests": [{"assert": "assert abs(half(3) - 1.5) < 1e-6"}]},
    "assert_math": {
        "tests": [
            {"assert": "import math\nassert math.fabs(half(3) - 1.5) < 1e-6"},
            {"assert": "assert math.isclose(half(5), 2.5)"},
        ]
    },
    "assert_except": {"tests": [{"assert": "try:\n    r = add(1, 2)\nexcept:\n    r = 3\nassert r == 3"}]},
    "assert_mutates": {"tests": [{"assert": "x = [3, 1, 2]\nassert sort_in_place(x) is None\nassert x == [1, 2, 3]"}]},
    "assert_raises": {
        "tests": [{"assert": "try:\n    checked(-1)\n    assert False\n"
                             "except ValueError as error:\n    assert 'negative' in str(error)"}]
    },
    "assert_types": {
        "tests": [
            {"assert": "assert pairs(3) == [(0, 0), (1, 1), (2, 4)]"},
            {"assert": "assert isinstance(pairs(2)[0], tuple)"},
            {"assert": "assert type(pairs(0)) == list"},
        ]
    },
    "assert_callback": {"tests": [{"assert": "assert apply(lambda x: x * 2, [1, 2]) == [2, 4]"}]},
    "assert_object": {"tests": [{"assert": "s = Stack()\ns.push(1)\ns.push(2)\nassert s.pop() == 2\n"
                                            "assert s.size == 1"}]},
    "assert_names": {
        "tests": [{"assert": "LIMIT == 5"}, {"assert": "import asyncio\nassert asyncio.run(later(3)) == 3"}]
    },
    "humaneval": {"tests": [{"assert": _HUMANEVAL}], "entry_point": "add"},
    "humaneval_helper": {
        "tests": [
            {"assert": "import math\ndef check(candidate):\n    for c in ([1, 2], [-6, 11, -6, 1]):\n"
                       "        assert math.fabs(poly(c, candidate(c))) < 1e-4\ncheck(find_zero)"},
        ],
        "entry_point": "find_zero",
        "prelude": _PRELUDE_POLY,
    },
    "flip": {"tests": [{"call": "flip", "args": [[["X", "O"], ["O", "."]]], "expected": [["O", "X"], ["X", "."]],
                        "argument": 0}]},
    "positive": {"tests": [{"call": "Solution().pos", "args": [[-1, -2]], "expected": []}]},
    "shift": {"tests": [{"call": "shift", "args": [[[-1.5, 2e3], []], -2, "a\"\\\n\u00e9\U0001f642", True],
                         "expected": [[-3.5, 1998.0], []]}]},
    "add_two": {"tests": [{"call": "addTwoNumbers", "args": [[2, 4, 3], [5, 6, 4]], "expected": [7, 0, 8]},
                          {"call": "addTwoNumbers", "args": [[9, 9], [1]], "expected": [0, 0, 1]}]},
    "merge_k": {"tests": [{"call": "mergeKLists", "args": [[[1, 4, 5], [1, 3, 4], [2, 6]]],
                           "expected": [1, 1, 2, 3, 4, 4, 5, 6]},
                          {"call": "mergeKLists", "args": [[]], "expected": []}]},
    "reverse": {"tests": [{"call": "rev", "args": [[1, 2, 3]], "expected": [3, 2, 1]},
                          {"call": "rev", "args": [[]], "expected": []}]},
    "reorder": {"tests": [{"call": "reorderList", "args": [[1, 2, 3, 4]], "expected": [1, 4, 2, 3], "argument": 0}]},
    "invert": {"tests": [{"call": "invertTree", "args": [[4, 2, 7, 1, 3, 6, 9]], "expected": [4, 7, 2, 9, 6, 3, 1]},
                         {"call": "invertTree", "args": [[1, 2]], "expected": [1, None, 2]},
                         {"call": "invertTree", "args": [[]], "expected": []}]},
    "lca": {"tests": [{"call": "lowestCommonAncestor", "args": [[3, 5, 1, 6, 2, 0, 8, None, None, 7, 4], 5, 1],
                       "expected": 3}]},
    "palindrome": {"tests": [{"call": "isPalindrome", "args": ["abcba"], "expected": True},
                             {"call": "isPalindrome", "args": ["ab"], "expected": False}]},
    "factorial": {"tests": [{"call": "factorial", "args": [15], "expected": 1307674368000},
                            {"call": "factorial", "args": [0], "expected": 1}]},
    "count": {"tests": [{"call": "count", "args": ["abca"], "expected": {"a": 2, "b": 1, "c": 1}}]},
    "find": {"tests": [{"call": "find", "args": [[5, 6], 6], "expected": 1}, {"call": "find", "args": [[5, 6], 7],
             "expected": None}]},
    "spiral": {"tests": [{"call": "spiralOrder", "args": [[[1, 2, 3], [4, 5, 6], [7, 8, 9]]],
                          "expected": [1, 2, 3, 6, 9, 8, 7, 4, 5]}]},
    "median": {"tests": [{"call": "median", "args": [[1, 3], [2]], "expected": 2.0}, {"call": "median", "args":
               [[1, 2], [3, 4]], "expected": 2.5}]},
    "subsets": {"tests": [{"call": "subsets", "args": [[1, 2]], "expected": [[], [1], [2], [1, 2]]}],
                "checker": "unordered"},
    "case": {"tests": [{"stdin": "2\n3 4\n5 6\n", "expected": "Case #1: 7\nCase #2: 11\n"}]},
}  # fmt: skip


@dataclass(frozen=True)
class Program:
    """One program of the corpus."""

    name: str
    language: str
    problem: str
    source: str

    @property
    def spec(self) -> dict[str, Any]:
        """What it is held against."""
        return {"language": self.language, **LIMITS, **PROBLEMS[self.problem]}


def read(folder: str) -> list[Program]:
    """Every program in a folder of the corpus."""
    programs = []
    for path in sorted((FOLDER / folder).glob("*.txt")):
        for block in re.split(r"^=== ", path.read_text(), flags=re.MULTILINE)[1:]:
            title, _, source = block.partition("\n")
            name, problem, *language = (part.strip() for part in title.split("|"))
            programs.append(Program(f"{path.stem}/{name}", language[0] if language else path.stem, problem, source))
    return programs
