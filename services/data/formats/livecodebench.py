"""LiveCodeBench's code_generation(_lite): public tests as JSON text, private ones packed.

{"question_content": …, "starter_code": …,
 "public_test_cases": "[{\\"input\\": …, \\"output\\": …, \\"testtype\\": …}]",
 "private_test_cases": base64(zlib(pickle(JSON text))), "metadata": "{\\"func_name\\": …}"}

A pickle is a program, and this one comes with data. It is never run: its opcodes are read, and what is anything but one
text is refused.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import zlib
from collections.abc import Mapping
from typing import Any

from rayzero.services.data.formats.columns import kind_of, optional_text, parsed_text, required, text
from rayzero.services.data.formats.problem import Problem, PublishedFormat, RowFault, Values
from rayzero.services.data.formats.programs import code_spec, with_starter
from rayzero.services.schema.nested import find

MAX_UNPACKED_BYTES = 512 * 2**20
"""Of one row's private tests: a few kilobytes may unpack to more than a machine has."""
_TEXT_OPCODES = frozenset(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"))
_HARMLESS_OPCODES = frozenset(("PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"))


def read(values: Values) -> Problem:
    """A row's problem. Raises RowFault."""
    question = with_starter(text(values, "question_content"), optional_text(values, "starter_code"))
    tests = [*_tests(values, "public_test_cases"), *_tests(values, "private_test_cases")]
    spec = code_spec(tests, what="public_test_cases and private_test_cases", fn_name=_function(values))
    return Problem(prompt=question, answer=spec, task="code")


def unpacked(packed: str, what: str) -> str:
    """The JSON text in base64(zlib(pickle(text))). Raises RowFault, and runs nothing."""
    try:
        stream = zlib.decompressobj()
        pickled = stream.decompress(base64.b64decode(packed, validate=True), MAX_UNPACKED_BYTES)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise RowFault("broken JSON", f"{what} is neither JSON nor packed tests: {error}") from None
    if stream.unconsumed_tail or not stream.eof:
        raise RowFault("refused", f"{what} unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB, or is cut off")
    return _pickled_text(pickled, what)


def _pickled_text(pickled: bytes, what: str) -> str:
    found: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in _TEXT_OPCODES:
                found.append(str(argument))
            elif opcode.name not in _HARMLESS_OPCODES:
                raise RowFault("refused", f"{what} is a pickle with {opcode.name}: only one that holds a text is read")
    except RowFault:
        raise
    except Exception as error:  # the package raises what its readers of single opcodes raise
        raise RowFault("broken JSON", f"{what} unpacks to no pickle: {error}") from None
    if len(found) != 1:
        raise RowFault(
            "refused", f"{what} is a pickle of {len(found)} texts: only one that holds a single text is read"
        )
    return found[0]


def _tests(values: Values, name: str) -> list[Any]:
    tests = required(values, name)
    if isinstance(tests, str):
        is_json = tests.lstrip()[:1] in ("[", "{", "")
        what = f"column {name!r}"
        tests = parsed_text(tests if is_json else unpacked(tests, what), what)
    if not isinstance(tests, list):
        raise RowFault("wrong type", f"column {name!r} must be a list of tests, not {kind_of(tests)}")
    for number, test in enumerate(tests):
        if not isinstance(test, Mapping) or test.get("input") is None or test.get("output") is None:
            raise RowFault("broken tests", f"column {name!r}: test {number} lacks `input` or `output`")
    return tests


def _function(values: Values) -> str | None:
    name = find(values, "metadata.func_name")
    return name if isinstance(name, str) else None


LIVECODEBENCH = PublishedFormat(
    name="livecodebench",
    about="LiveCodeBench: public tests as JSON text, private ones packed",
    marks=("question_content", "public_test_cases", "private_test_cases"),
    reads=frozenset(("question_content", "starter_code", "public_test_cases", "private_test_cases")),
    read=read,
)
