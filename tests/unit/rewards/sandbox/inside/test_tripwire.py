"""What text is evaluated for a third-party scorer, and that nothing goes around it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from rayzero.rewards.sandbox.inside import tripwire

ROUTES = {
    "exec": "exec('won()')",
    "a name kept from before": "kept('won()')",
    "code": "exec(compile('won()', 'x', 'exec'))",
    "a function of code": "types.FunctionType(compile('won()', 'x', 'exec'), globals())()",
    "a lambda": "eval('(lambda: won())()')",
    "a comprehension": "eval('[won() for _ in (1,)]')",
    "attributes": "eval('().__class__')",
    "a module": "eval('__import__(\"os\").getpid()')",
    "a variable of the caller": "won() if eval('secret') == 1 else None",
    "a pickle": "pickle.loads(b'cbuiltins\\neval\\n(S\\'1\\'\\ntR.'); won()",
    "a command": "os.system('true'); won()",
    "a process": "subprocess.Popen(['true']); won()",
    "a fork": "os.fork(); won()",
    "a socket": "socket.socket(); won()",
    "a library": "ctypes.CDLL(None); won()",
    "a file": "open('/dev/null', 'w'); won()",
    "the heap": "gc.get_objects(); won()",
    "a number without end": "won() if eval('9**9**9') else None",
    "a string evaluated within": "eval('log(\"1\")', {'log': eval}) ; won()",
}
"""Each calls won() if it gets through; the last must: text within text is text of the same grammar."""
_PROLOGUE = f"""
import sys
sys.path.insert(0, {os.getcwd()!r})
import ctypes, gc, json, os, pickle, socket, subprocess, types
from rayzero.rewards.sandbox.inside.tripwire import Tripwire
kept, secret = exec, 1
def won(): os._exit(7)
"""
_ATTACKS = """
for name, body in json.loads(sys.argv[1]).items():
    exec(f"def attack():\\n    {body}")
    if os.fork() == 0:
        wire = Tripwire()
        wire.arm()
        try:
            attack()
        except Exception:
            os._exit(3 if wire.refused else 4)
        os._exit(5)
    print(name, os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.mark.parametrize(
    "text",
    ["[[1, 0], [0, 1]]", "[['_', 'Q'], ['Q', '_']]", "'abc'", "(3 + 4) * -2 // 1 % 5", "{1, 2}", "{'a': [1.5, None]}",
     "1 < 2 and not False", "0x123 << 0x4", "Integer (3 )*Symbol ('x' )**Integer (2 )", "sqrt(2)*pi/2 + exp(I*pi)",
     "factorial(5)", "2**100", "x" if False else "10**100", "log(Symbol('x'))", "1 + 2j"],
)  # fmt: skip
def test_literals_numbers_and_functions_of_mathematics_are_evaluated(text: str) -> None:
    tripwire.read(text)


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "open", "open('x')", "answer", "a.b", "a[0]", "[1, 2][0]", "(lambda: 1)()", "f'{1}'",
     "[x for x in (1,)]", "{**{}}", "[*(1,)]", "1 if 1 else 2", "(a := 1)", "print(1)", "sympify('1')", "S('1')",
     "Integer(3).func", "Symbol('x', cls=open)", "lambdify([], 'x')", "9**9**9", "2**(2**40)", "1 << (1 << 40)",
     "factorial(10**9)", "10**10**10", "await_", "Symbol", "1" + "+1" * 15_000],
)  # fmt: skip
def test_nothing_else_is(text: str) -> None:
    with pytest.raises(tripwire.NotAnAnswerError):
        tripwire.read(text)


def test_a_symbol_that_the_caller_names_is_a_name_and_a_variable_is_none() -> None:
    tripwire.read("x**2 + C", frozenset({"x", "C"}))
    with pytest.raises(tripwire.NotAnAnswerError):
        tripwire.read("x**2 + answer", frozenset({"x", "C"}))


def run(code: str, *arguments: str) -> str:
    process = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _PROLOGUE + code, *arguments], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_no_way_from_text_to_code_is_left() -> None:
    ended = dict(line.rsplit(" ", 1) for line in run(_ATTACKS, json.dumps(ROUTES)).splitlines())
    assert ended.pop("a string evaluated within") == "7"
    assert len(ended) == len(ROUTES) - 1
    assert not {route: status for route, status in ended.items() if status not in ("3", str(tripwire.TRIPPED))}


def test_classes_are_made_and_modules_loaded_as_before() -> None:
    code = """
wire = Tripwire()
wire.arm()
import collections, dataclasses
made = [collections.namedtuple("P", "a b")(1, 2), dataclasses.make_dataclass("D", ["a"])(3)]
import fractions, html.parser
print(json.dumps([eval("[1, (2, 3)]"), str(made[0]), made[1].a, eval(" {'a': 1} ")]))
"""
    assert json.loads(run(code)) == [[1, [2, 3]], "P(a=1, b=2)", 3, {"a": 1}]
