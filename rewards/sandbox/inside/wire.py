"""Values as strictly typed JSON: what crosses a box's wall.

Only builtin values pass, a subclass's instance without its class: an object with an `__eq__` of its own cannot be
spelt, so it cannot equal everything outside. Runs inside the box and outside of it; stdlib only.

    1, 1.5, True, None, "x", [1]      as in JSON
    (1, 2)                            {"$": "tuple", "v": [1, 2]}
    {"a": 1}                          {"$": "dict", "v": [["a", 1]]}
    2**70, nan, 1j, b"x"              {"$": "int", "v": "0x4..."}, {"$": "float", "v": "nan"}, ...
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import functools
import importlib
import json
import socket
import struct
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 100
MAX_DECIMAL = 10_000
SAFE_INT = 2**53
HEADER = struct.Struct("!I")


class WireError(Exception):
    """A value that cannot be spelt, or bytes that do not spell one."""


def _mapping(value: Any) -> list[Any]:
    return [[key, item] for key, item in dict.items(value)]


_TAGS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    tuple: ("tuple", list),
    set: ("set", list),
    frozenset: ("frozenset", list),
    collections.deque: ("deque", list),
    dict: ("dict", _mapping),
    collections.Counter: ("counter", _mapping),
    collections.OrderedDict: ("ordereddict", _mapping),
    complex: ("complex", lambda value: [encode(value.real), encode(value.imag)]),
    bytes: ("bytes", lambda value: value.hex()),
    bytearray: ("bytearray", lambda value: value.hex()),
    range: ("range", lambda value: [encode(value.start), encode(value.stop), encode(value.step)]),
    decimal.Decimal: ("decimal", str),
    fractions.Fraction: ("fraction", lambda value: [encode(value.numerator), encode(value.denominator)]),
    datetime.datetime: ("datetime", datetime.datetime.isoformat),
    datetime.date: ("date", datetime.date.isoformat),
    datetime.time: ("time", datetime.time.isoformat),
    datetime.timezone: ("timezone", lambda value: int(value.utcoffset(None).total_seconds())),
    datetime.timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    slice: ("slice", lambda value: [encode(value.start), encode(value.stop), encode(value.step)]),
    type(...): ("ellipsis", lambda value: None),
    type(NotImplemented): ("notimplemented", lambda value: None),
}
_MAPPINGS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "counter": collections.Counter,
    "ordereddict": collections.OrderedDict,
}
_NAMED = {"UUID": "uuid", "PosixPath": "pathlib", "PurePosixPath": "pathlib"}
"""Classes that are their text, in modules that most programs never import."""
_NESTED = {"tuple", "set", "frozenset", "deque"}
_ITERATORS: tuple[type, ...] = (
    type(iter(())),
    type(iter([])),
    type(iter({})),
    type({}.keys()),
    type({}.values()),
    type({}.items()),
    type(_ for _ in ()),
    map,
    filter,
    zip,
    enumerate,
    reversed,
)
MAX_ITERATED = 1_000_000
_PLAIN: dict[type, Callable[[Any], Any]] = {
    int: lambda value: int.__add__(value, 0),
    float: lambda value: float.__add__(value, 0.0),
    str: lambda value: str.__getitem__(value, slice(None)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    list: lambda value: list(list.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: set(set.__iter__(value)),
}
"""What is left of an instance of a subclass (a named tuple, an IntEnum, a Counter): the builtin value without its
class."""


def encode(value: Any, depth: int = 0, other: Callable[[Any], Any] | None = None) -> Any:
    """The JSON spelling of `value`. `other` spells what has no builtin type (an object handle); without it
    WireError."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -SAFE_INT <= value <= SAFE_INT else {"$": "int", "v": hex(value)}
    if kind is float:
        return value if value - value == 0 else {"$": "float", "v": repr(value)}
    if depth >= MAX_DEPTH:
        raise WireError("nested too deeply")
    if kind is list:
        return [encode(item, depth + 1, other) for item in value]
    if kind in _TAGS:
        tag, spell = _TAGS[kind]
        body = spell(value)
        if tag in _NESTED:
            body = [encode(item, depth + 1, other) for item in body]
        elif tag in _MAPPINGS:
            body = [[encode(key, depth + 1, other), encode(item, depth + 1, other)] for key, item in body]
        return {"$": tag, "v": body}
    if kind in _ITERATORS:
        items = []
        for item in value:
            items.append(encode(item, depth + 1, other))
            if len(items) > MAX_ITERATED:
                raise WireError("an iterator that does not end")
        return {"$": "iterator", "v": items}
    if isinstance(value, tuple) and type(getattr(kind, "_fields", None)) is tuple:
        items = [encode(item, depth + 1, other) for item in tuple.__iter__(value)]
        return {"$": "namedtuple", "v": [str(kind.__name__), [str(name) for name in kind._fields], items]}
    for base, plain in _PLAIN.items():
        if isinstance(value, base):
            return encode(plain(value), depth, other)
    if _NAMED.get(kind.__name__) == kind.__module__.partition(".")[0]:
        return {"$": "named", "v": [kind.__name__, str(value)]}
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return _numpy(value, depth, other)
    if other is not None:
        return other(value)
    raise WireError("a value of type " + str(kind.__name__) + " has no JSON spelling")


def _numpy(value: Any, depth: int, other: Callable[[Any], Any] | None) -> Any:
    """A number of numpy's as a number, an array as nested lists beside the name of its type."""
    plain = encode(value.tolist(), depth + 1, other)
    return plain if getattr(value, "ndim", 0) == 0 else {"$": "ndarray", "v": [str(value.dtype), plain]}


@functools.lru_cache(256)
def _namedtuple(name: str, fields: tuple[str, ...]) -> Callable[..., Any]:
    return collections.namedtuple(name, fields)


def _hashable_pairs(pairs: list[Any], depth: int, other: Callable[[dict[str, Any]], Any] | None) -> dict[Any, Any]:
    return {decode(key, depth + 1, other): decode(item, depth + 1, other) for key, item in pairs}


def decode(tree: Any, depth: int = 0, other: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value that `tree` (parsed JSON) spells; WireError where it spells none. Never calls what came from a box."""
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    if depth >= MAX_DEPTH:
        raise WireError("nested too deeply")
    if isinstance(tree, list):
        return [decode(item, depth + 1, other) for item in tree]
    if not isinstance(tree, dict) or not isinstance(tree.get("$"), str):
        raise WireError("not a typed value")
    tag: str = tree["$"]
    body: Any = tree.get("v")
    try:
        if tag == "ndarray":
            return decode(body[1], depth + 1, other) if other is None else other(tree)
        if tag == "generator":
            return (item for item in [decode(item, depth + 1, other) for item in body])
        if tag == "namedtuple":
            items = tuple(decode(item, depth + 1, other) for item in body[2])
            return items if other is None else _namedtuple(str(body[0]), tuple(map(str, body[1])))(*items)
        if tag == "named":
            return getattr(importlib.import_module(_NAMED[body[0]]), body[0])(str(body[1]))
        if tag in _DECODERS:
            return _DECODERS[tag]([decode(item, depth + 1, other) for item in body])
        if tag in _MAPPINGS:
            return _MAPPINGS[tag](_hashable_pairs(body, depth, other))
        if tag in _SCALARS:
            return _SCALARS[tag](body)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise WireError("malformed " + tag) from error
    if other is not None:
        return other(tree)
    raise WireError("unknown tag " + repr(tag[:40]))


def _integers(parts: list[Any]) -> list[int]:
    """A fraction of texts would be parsed, and one of "1e7" computed: what crosses is what it stands for."""
    if not all(type(part) is int for part in parts):
        raise WireError("not integers")
    return parts


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_DECIMAL:
        raise WireError("not a short text")
    return value


_DECODERS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
    "iterator": iter,
    "complex": lambda parts: complex(float(parts[0]), float(parts[1])),
    "range": lambda parts: range(*_integers(parts)),
    "fraction": lambda parts: fractions.Fraction(*_integers(parts)),
    "timedelta": lambda parts: datetime.timedelta(*parts),
    "slice": lambda parts: slice(*parts),
}
_SCALARS: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "float": lambda text: {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}[text],
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "decimal": lambda text: decimal.Decimal(_text(text)),
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "timezone": lambda seconds: datetime.timezone(datetime.timedelta(seconds=seconds)),
    "time": datetime.time.fromisoformat,
    "ellipsis": lambda nothing: ...,
    "notimplemented": lambda nothing: NotImplemented,
}


def builtin_type(value: Any) -> str:
    """The name of a builtin type, which means the same on both sides; "" for anything else."""
    if not isinstance(value, type):
        return ""
    name = type.__getattribute__(value, "__name__")
    return name if vars(builtins).get(name) is value else ""


def dumps(message: Any) -> bytes:
    """Compact ASCII JSON (lone surrogates survive); NaN cannot occur in an encoded tree."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode()


def loads(data: bytes) -> Any:
    """Parse JSON, with every way of failing (depth, digits, bytes) as WireError."""
    try:
        return json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError, MemoryError) as error:
        raise WireError("not JSON: " + str(error)[:80]) from error


def _refuse(name: str) -> Any:
    raise ValueError(name + " is not JSON")


def send_frame(sock: socket.socket, message: Any) -> None:
    """One length-prefixed JSON message."""
    data = dumps(message)
    sock.sendall(HEADER.pack(len(data)) + data)


def receive_frame(sock: socket.socket, limit_bytes: int) -> Any:
    """The next message; EOFError when the other end is gone, WireError for what is too long or no JSON."""
    (length,) = HEADER.unpack(_receive_exactly(sock, HEADER.size))
    if length > limit_bytes:
        raise WireError("a message of " + str(length) + " bytes")
    return loads(_receive_exactly(sock, length))


def only_frame(data: bytes) -> Any:
    """The one frame in `data`; None for none, or more than one, or a torn one: an honest box sends none of those."""
    size = HEADER.size
    if len(data) < size or HEADER.unpack(data[:size])[0] != len(data) - size:
        return None
    try:
        return loads(data[size:])
    except WireError:
        return None


def _receive_exactly(sock: socket.socket, length: int) -> bytes:
    chunks = []
    while length:
        chunk = sock.recv(min(length, 1 << 20))
        if not chunk:
            raise EOFError
        chunks.append(chunk)
        length -= len(chunk)
    return b"".join(chunks)
