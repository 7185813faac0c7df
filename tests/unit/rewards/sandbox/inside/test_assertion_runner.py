"""The test's side of assertions: what a text asks, what a test file's helpers mean, what crosses the link."""

from __future__ import annotations

import contextlib
import io
import json
import socket
from typing import Any

import pytest

from rayzero.rewards.sandbox.inside import errors, graph, link, pytest_like, scope, wire
from rayzero.rewards.sandbox.inside.assertion_text import TestFault, TestText


@pytest.mark.parametrize(
    "text",
    [
        "assert (f(1) == 2, 'text')",
        "f(1) == 2, 'text'",
        "assert [f(1) == 2]",
        "assert (f(x) == 2 for x in [1])",
        "assert 'f(1) == 2'",
        "assert lambda: f(1) == 2",
        "class T:\n    def test_a(self):\n        self.assertTrue((f(1) == 2, 'text'))",
        "y = f(1)",
        "# nothing",
        "",
        "assert f(1) ==",
    ],
)
def test_what_always_holds_or_asserts_nothing_is_a_fault(text: str) -> None:
    with pytest.raises(TestFault):
        TestText(text, ())


@pytest.mark.parametrize(
    "text", ["assert f() == ()", "assert not f()", "f(1) == 2", "check(f)\n", "if f(1) != 2:\n    exit(1)"]
)
def test_what_can_fail_is_a_test(text: str) -> None:
    assert "f" in TestText(text, ["check"]).free


@pytest.mark.parametrize(
    ("text", "entry_point", "taken", "unclear"),
    [
        ("assert sum(3, 4) == 7", "", {"sum"}, set()),
        ("assert isinstance(max(3, 9), int)", "", {"max"}, set()),
        ("assert abs(half(3) - 1.5) < 1e-6", "", set(), set()),
        ("assert sum([max(3, 9)]) == 9", "", set(), {"sum", "max"}),
        ("assert sum([max(3, 9)]) == 9", "max", {"max"}, set()),
        ("from solution import f\nassert abs(f(1)) == 1", "", set(), set()),
        ("import math\nassert max(3, 9) == 9", "", {"max"}, set()),
    ],
)
def test_which_builtins_mean_the_program(text: str, entry_point: str, taken: set[str], unclear: set[str]) -> None:
    assert TestText(text, ()).program_names_like_builtins(entry_point) == (frozenset(taken), frozenset(unclear))


def test_a_star_brings_nothing_over_the_tests_own_names() -> None:
    text = TestText("from solution import *\nassert abs(half(3) - 1.5) < 1e-6", ())
    assert text.free == {"abs", "half"}
    assert "solution" not in {getattr(node, "module", None) for node in text.tree.body}


class Own(ValueError):
    """A program's own."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


def crossed(error: BaseException, classes: errors.Classes | None = None) -> BaseException:
    return (classes or errors.Classes()).error(json.loads(json.dumps(errors.spell(error))))


def test_an_exception_of_the_programs_own_is_rebuilt_of_builtins() -> None:
    classes = errors.Classes()
    made = crossed(Own(7), classes)
    kind = classes.find(errors.spell_class(Own))
    assert type(made) is kind and kind is not Own and issubclass(kind, ValueError)
    assert (str(made), vars(made)["code"], errors.is_from_program(made)) == ("code 7", 7, True)
    assert not errors.is_from_program(ValueError("the test's"))


def test_exceptions_of_the_standard_library_are_themselves() -> None:
    with pytest.raises(json.JSONDecodeError) as raised:
        json.loads("{")
    made = crossed(raised.value)
    assert type(made) is json.JSONDecodeError and str(made) == str(raised.value)
    assert type(crossed(KeyError("x"))) is KeyError


@pytest.mark.parametrize(
    "raised",
    [
        {"builtin": "KeyboardInterrupt"},
        {"builtin": "print"},
        {"module": "unittest", "name": "SkipTest"},
        {"module": "unittest.case", "name": "SkipTest"},
        {"module": "os", "name": "system"},
        {"module": "json", "name": "loads"},
        {"own": "x"},
        {"own": 1, "bases": [{"builtin": "GeneratorExit"}]},
        [],
        None,
    ],
)
def test_a_forged_exception_is_a_program_error(raised: Any) -> None:
    made = errors.Classes().error({"raised": raised, "message": "m"})
    assert isinstance(made, errors.ProgramError) and errors.is_from_program(made)


def test_a_function_that_stops_an_iteration_ends_none_of_the_tests() -> None:
    stop = {"raised": {"builtin": "StopIteration"}, "args": [], "message": "", "fields": {}}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = link.Link(ours)

        def asked(number: int) -> bool:
            wire.send_frame(theirs, stop)
            return bool(made.call("f", (number,), {}))

        with pytest.raises(RuntimeError):
            all(map(asked, [1, 2]))
        with pytest_like.raises(StopIteration):
            asked(1)
        wire.send_frame(theirs, stop)
        with pytest.raises(StopIteration):  # an iterator's own end stays one
            made.operate("next", None)


def test_a_forged_field_hides_no_method_of_the_tests_class() -> None:
    class Node:
        def equals(self, other: object) -> bool:
            return False

    rows = [{"class": "Node", "fields": {"equals": 1, "val": 3, "__class__": 4, "a b": 5}}]
    made = graph.ObjectGraph()
    made.read(rows, lambda name: Node, lambda tree: None)
    assert vars(made.objects[0]) == {"val": 3}


def test_a_long_list_and_a_cycle_cross_as_tables() -> None:
    class Node:
        def __init__(self, val: int, next: Any = None) -> None:
            self.val, self.next = val, next

    head = last = Node(0)
    for number in range(1, 5000):
        last.next = last = Node(number)
    last.next = head
    there = graph.ObjectGraph()
    there.spell(head)
    rows = json.loads(json.dumps(there.table(there.spell)))
    here = graph.ObjectGraph()
    here.read(rows, lambda name: Node, lambda tree: here.find(tree))
    assert [node.val for node in here.objects] == list(range(5000))
    assert here.objects[-1].next is here.objects[0]


@pytest.mark.parametrize(
    ("got", "wanted", "equal"),
    [
        (0.1 + 0.2, 0.3, True),
        (0.31, 0.3, False),
        ([0.1 + 0.2, 1], [0.3, 1.0], True),
        ([0.3], [0.3, 0.3], False),
        ({"a": 0.30000000001}, {"a": 0.3}, True),
        (True, 1, False),
        ("0.3", 0.3, False),
        (float("nan"), float("nan"), False),
        (float("inf"), 1e308, False),
        (3, 3, True),
    ],
)
def test_approx_as_pytest_has_it(got: Any, wanted: Any, equal: bool) -> None:
    assert (got == pytest_like.Approx(wanted)) is equal


def test_raises_as_pytest_has_it() -> None:
    with pytest_like.raises(ValueError, match="neg") as caught:
        raise ValueError("negative")
    assert str(caught.value) == "negative"
    for body in (lambda: None, lambda: int("x")):
        with pytest.raises((pytest_like.Failed, ValueError)), pytest_like.raises(KeyError):
            body()
    assert issubclass(pytest_like.Failed, AssertionError)


def test_what_site_brings_and_leetcode_imports() -> None:
    offered = scope.offered()
    assert {"defaultdict", "List", "inf", "heappush", "cache", "math", "gcd"} <= offered.keys()
    assert not {"pow", "abs", "sum", "print"} & offered.keys(), "builtins keep their meaning"
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as left:
        scope.Quitter("exit")(3)
    assert left.value.code == 3


@pytest.mark.parametrize("tag", ["datetime", "date", "timedelta", "slice", "ndarray", "generator", "time"])
@pytest.mark.parametrize("body", [None, "x", [1, [2]], {}, [[], "a"], 7])
def test_a_forged_tag_spells_a_value_or_nothing(tag: str, body: Any) -> None:
    with contextlib.suppress(wire.WireError):
        wire.decode({"$": tag, "v": body})
