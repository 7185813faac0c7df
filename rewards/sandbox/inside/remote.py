"""Handles: what stands in the test's box for a function, class or object of the program.

What a handle is asked alone (its text, length, items, truth) is a value that the program may return like any other.
A question that sets it beside a value of the test (`==`, `<`, `-`, `in`) is refused: the program would answer it, and
`abs(f(3) - 1.5) < 1e-6` would hold for any object with a `-` of its own. Between two handles the program may answer: it
could have returned equal values as well.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")
_READABLE = frozenset({"__name__", "__qualname__", "__doc__", "__wrapped__", "__annotations__", "__members__"})


class ProgramSide(Protocol):
    """What a handle asks: the other end of a link."""

    def get(self, target: Any, name: str) -> Any:
        """An attribute of an object there."""

    def call(self, target: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call it there."""

    def operate(self, name: str, *args: Any) -> Any:
        """An operator or builtin function on objects that are there."""


class Remote:
    """One handle. `_target`: a name of the program's module, or the number of an object there."""

    def __init__(self, link: ProgramSide, target: Any, own: bool = False) -> None:
        """`own`: an instance that the test itself made by calling a class by its name (`Vector(1, 2)`): what it does
        with values is what is tested."""
        self.__dict__.update(_link=link, _target=target, _own=own)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call it there."""
        made = self._link.call(self._target, args, keywords)
        named = self._target if isinstance(self._target, str) else ""
        if isinstance(made, Remote) and named.rpartition(".")[2][:1].isupper():
            made.__dict__["_own"] = True
        return made

    def __getattr__(self, name: str) -> Any:
        """Its attribute, as a typed value or another handle."""
        if name.startswith("__") and name not in _READABLE:
            raise AttributeError(name)
        return self._link.get(self._target, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set it there."""
        self._link.operate("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        """Delete it there."""
        self._link.operate("delattr", self, name)

    def __bool__(self) -> bool:
        """Its truth: as good as a `True` that the program returned."""
        return self._of(bool, "bool")

    def __hash__(self) -> int:
        """As its class has it."""
        return self._of(int, "hash")

    def __eq__(self, other: object) -> bool:
        """Of two handles what their class says; never of a handle and a value."""
        if other is None or other is self:
            return other is self
        if not isinstance(other, Remote):
            raise TypeError("the program returned an object, not a value")
        return self._of(bool, "eq", other)

    def __ne__(self, other: object) -> bool:
        """The contrary of `==`: two answers of one kind cannot both be yes."""
        return not self == other

    def __str__(self) -> str:
        return self._of(str, "str")

    def __repr__(self) -> str:
        return self._of(str, "repr")

    def __format__(self, spec: str) -> str:
        return self._of(str, "format", spec)

    def __len__(self) -> int:
        return self._of(int, "len")

    def __int__(self) -> int:
        return self._of(int, "int")

    def __index__(self) -> int:
        return self._of(int, "index")

    def __float__(self) -> float:
        return self._of(float, "float")

    def __complex__(self) -> complex:
        return self._of(complex, "complex")

    def __round__(self, *digits: int) -> Any:
        return self._link.operate("round", self, *digits)

    def __iter__(self) -> Any:
        return iter(made) if not isinstance(made := self._link.operate("iter", self), Remote) else made

    def __next__(self) -> Any:
        return self._link.operate("next", self)

    def __reversed__(self) -> Any:
        return self._link.operate("reversed", self)

    def __getitem__(self, key: Any) -> Any:
        return self._link.operate("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._link.operate("setitem", self, key, value)

    def __delitem__(self, key: Any) -> None:
        self._link.operate("delitem", self, key)

    def __contains__(self, item: Any) -> bool:
        self._beside(item)
        return self._of(bool, "contains", item)

    def __enter__(self) -> Any:
        return self._link.operate("enter", self)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Literal[False]:
        """The program hears of no error of the test, and cannot swallow one."""
        self._link.operate("exit", self)
        return False

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Remote) and bool(self._link.operate("isinstance", instance, self) is True)

    def __subclasscheck__(self, other: Any) -> bool:
        return isinstance(other, Remote) and bool(self._link.operate("issubclass", other, self) is True)

    def __copy__(self) -> Any:
        return self._link.operate("copy", self)

    def __deepcopy__(self, memo: Any) -> Any:
        return self._link.operate("deepcopy", self)

    def __dir__(self) -> list[str]:
        return [name for name in self._link.operate("dir", self) if isinstance(name, str)]

    def _of(self, kind: type[T], name: str, *args: Any) -> T:
        """What an operation gives, which must be of exactly this type."""
        value = self._link.operate(name, self, *args)
        if type(value) is not kind:
            raise TypeError(f"{name} of the program's object gave no {kind.__name__}")
        return value

    def _beside(self, other: Any) -> None:
        if not self._own and not isinstance(other, Remote):
            raise TypeError("the program returned an object, not a value")


def _binary(name: str, swapped: bool) -> Any:
    def operator(self: Remote, other: Any) -> Any:
        self._beside(other)
        made = self._link.operate(name, *((other, self) if swapped else (self, other)))
        if isinstance(made, Remote):
            made.__dict__["_own"] = self._own
        return made

    return operator


def _unary(name: str) -> Any:
    def operator(self: Remote) -> Any:
        made = self._link.operate(name, self)
        if isinstance(made, Remote):
            made.__dict__["_own"] = self._own
        return made

    return operator


def _compared(name: str) -> Any:
    def operator(self: Remote, other: Any) -> bool:
        if not isinstance(other, Remote):
            raise TypeError("the program returned an object, not a value")
        return bool(self._of(bool, name, other))

    return operator


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    setattr(Remote, f"__{_name}__", _binary(_name, False))
    setattr(Remote, f"__r{_name}__", _binary(_name, True))
for _name in ("neg", "pos", "invert", "abs"):
    setattr(Remote, f"__{_name}__", _unary(_name))
for _name in ("lt", "le", "gt", "ge"):
    setattr(Remote, f"__{_name}__", _compared(_name))


class _KindOf(type):
    """Of a handle the class that the program says, of all else Python's own `type`."""

    def __call__(cls, *args: Any, **keywords: Any) -> Any:
        if len(args) == 1 and type(args[0]) is Remote:
            return args[0]._link.operate("type", args[0])
        return type(*args, **keywords)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, type)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is type

    def __hash__(cls) -> int:
        return hash(type)


class kind_of(type, metaclass=_KindOf):
    """`type` in a test: `type(shape).__name__`, `type(make()) == Shape`."""
