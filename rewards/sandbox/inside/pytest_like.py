"""What test files use of pytest, for a box that has none: raises, approx, fixtures, parametrize, skip.

It runs on the test's side alone. A fifth of a millisecond to import, where pytest takes half a second.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import math
import re
import sys
import types
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

from rayzero.rewards.sandbox.inside.assertion_text import TestFault

_MARKS = "_rayzero_marks"


class Skipped(Exception):
    """The test does not want to be run."""


class Failed(AssertionError):
    """`pytest.fail`, or an exception that was expected and did not come."""


def marks_of(value: Any) -> dict[str, Any]:
    """What decorators said of a function or class."""
    found = vars(value).get(_MARKS) if inspect.isfunction(value) or inspect.isclass(value) else None
    found = vars(value.__func__).get(_MARKS) if inspect.ismethod(value) else found
    return found or {}


def _mark(value: Any, **marks: Any) -> Any:
    setattr(value, _MARKS, {**marks_of(value), **marks})
    return value


class Raises:
    """The context of `pytest.raises`, and the information about what was raised."""

    def __init__(self, kinds: Any, match: str | None) -> None:
        self._kinds, self._match = kinds, match
        self.value: Any = None
        self.type: Any = None

    def __enter__(self) -> Raises:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if error is None:
            raise Failed("DID NOT RAISE " + str(self._kinds))
        error = getattr(error, "instead_of", error)
        if not isinstance(error, self._kinds):
            return False
        self.value, self.type = error, type(error)
        if self._match is not None:
            self.match(self._match)
        return True

    def match(self, pattern: str) -> bool:
        """Whether the message holds `pattern`; Failed where not."""
        if not re.search(pattern, str(self.value)):
            raise Failed(f"{pattern!r} is not in {str(self.value)!r}")
        return True

    def __str__(self) -> str:
        return str(self.value)


def raises(expected: Any, *args: Any, match: str | None = None, **keywords: Any) -> Any:
    """As a context, or with a function to call."""
    context = Raises(expected, match)
    if not args:
        return context
    with context:
        args[0](*args[1:], **keywords)
    return context


class Approx:
    """Equal to numbers nearby, item by item in lists and dicts."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False) -> None:
        self._expected, self._rel, self._abs, self._nan_ok = expected, rel, abs, nan_ok

    def __eq__(self, other: object) -> bool:
        return self._close(other, self._expected)

    def __repr__(self) -> str:
        return f"approx({self._expected!r})"

    def _close(self, got: Any, wanted: Any) -> bool:
        if hasattr(wanted, "tolist"):
            wanted = wanted.tolist()
        if hasattr(got, "tolist") and isinstance(wanted, (list, int, float)):
            got = got.tolist()
        if isinstance(wanted, Mapping):
            return isinstance(got, Mapping) and got.keys() == wanted.keys() and all(
                self._close(got[key], value) for key, value in wanted.items()
            )  # fmt: skip
        if isinstance(wanted, (list, tuple)):
            return isinstance(got, (list, tuple)) and len(got) == len(wanted) and all(map(self._close, got, wanted))
        if isinstance(wanted, (int, float, complex)) and not isinstance(wanted, bool):
            return self._near(got, wanted)
        return bool(got == wanted)

    def _near(self, got: Any, wanted: Any) -> bool:
        if not isinstance(got, (int, float, complex)) or isinstance(got, bool):
            return False
        if got == wanted or (self._nan_ok and got != got and wanted != wanted):
            return True
        if isinstance(wanted, float) and not math.isfinite(wanted):
            return False
        relative = (1e-6 if self._rel is None and self._abs is None else self._rel or 0.0) * abs(wanted)
        return bool(abs(got - wanted) <= max(relative, 1e-12 if self._abs is None else self._abs))


def fixture(function: Any = None, **options: Any) -> Any:
    """Marks a function as one whose value tests ask for by name."""
    return _mark(function, fixture=options) if function is not None else lambda made: _mark(made, fixture=options)


class Parameters(tuple[Any, ...]):
    """`pytest.param`: the values of one set."""


def param(*values: Any, **options: Any) -> Parameters:
    """Values of one set; its name and marks say nothing here."""
    return Parameters(values)


def _parametrize(names: str | Iterable[str], values: Iterable[Any], **options: Any) -> Callable[[Any], Any]:
    own = [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else list(names)
    sets = []
    for value in values:
        row = value if isinstance(value, Parameters) or len(own) > 1 else (value,)
        if len(row) != len(own):
            raise TestFault(f"parametrize: {len(own)} names and {len(row)} values")
        sets.append(dict(zip(own, row, strict=True)))
    return lambda made: _mark(made, parametrize=[*marks_of(made).get("parametrize", ()), sets])


class _Mark:
    """`pytest.mark`: parametrize and skip count, others say nothing."""

    parametrize = staticmethod(_parametrize)

    @staticmethod
    def skip(made: Any = None, **options: Any) -> Any:
        """Not to be run."""
        return _mark(made, skip=True) if callable(made) else lambda other: _mark(other, skip=True)

    @staticmethod
    def skipif(condition: Any = True, **options: Any) -> Any:
        """Not to be run where `condition` holds."""
        return lambda made: _mark(made, skip=True) if condition else made

    def __getattr__(self, name: str) -> Any:
        def marked(*args: Any, **options: Any) -> Any:
            is_bare = len(args) == 1 and not options and (inspect.isfunction(args[0]) or inspect.isclass(args[0]))
            return args[0] if is_bare else lambda made: made

        return marked


def skip(reason: str = "", **options: Any) -> None:
    """Leave the test."""
    raise Skipped(reason)


def fail(reason: str = "", *args: Any, **options: Any) -> None:
    """The test has failed."""
    raise Failed(reason)


def module() -> types.ModuleType:
    """Itself as `import pytest` finds it."""
    made = types.ModuleType("pytest")
    skipped = types.SimpleNamespace(Exception=Skipped)
    vars(made).update(
        raises=raises, approx=Approx, fixture=fixture, param=param, mark=_Mark(), skip=skip, fail=fail, xfail=skip,
        main=lambda *args, **keywords: 0, warns=lambda *args, **keywords: contextlib.nullcontext(),
        importorskip=lambda name, **options: __import__(name), outcomes=skipped, FixtureRequest=object,
        CaptureFixture=Capture, MonkeyPatch=MonkeyPatch, ExceptionInfo=Raises,
    )  # fmt: skip
    return made


class Capture:
    """`capsys`: what was printed meanwhile, by the program too."""

    def __init__(self) -> None:
        self._old = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()

    def readouterr(self) -> Any:
        """What came since the last time."""
        texts = []
        for stream in (sys.stdout, sys.stderr):
            texts.append(stream.getvalue() if isinstance(stream, io.StringIO) else "")
            if isinstance(stream, io.StringIO):
                stream.seek(0)
                stream.truncate()
        return _Captured(*texts)

    def close(self) -> None:
        """Print where it was printed before."""
        sys.stdout, sys.stderr = self._old


class _Captured(tuple[str, str]):
    def __new__(cls, out: str, err: str) -> _Captured:
        return super().__new__(cls, (out, err))

    @property
    def out(self) -> str:
        return self[0]

    @property
    def err(self) -> str:
        return self[1]


class MonkeyPatch:
    """`monkeypatch`: attributes, items and variables set for one test."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def setattr(self, target: Any, name: Any, value: Any = ..., raising: bool = True) -> None:
        """On an object, or by dotted name."""
        if value is ...:
            target, name, value = *_located(target), name
        before = getattr(target, name, ...)
        self._undo.append(lambda: delattr(target, name) if before is ... else setattr(target, name, before))
        setattr(target, name, value)

    def setitem(self, target: Any, name: Any, value: Any) -> None:
        """In a dict."""
        before = target.get(name, ...)
        self._undo.append(lambda: target.pop(name) if before is ... else target.__setitem__(name, before))
        target[name] = value

    def setenv(self, name: str, value: str, prepend: str | None = None) -> None:
        """In the environment."""
        import os

        self.setitem(os.environ, name, value)

    def close(self) -> None:
        """Undo everything."""
        for undo in reversed(self._undo):
            undo()


def _located(path: str) -> tuple[Any, str]:
    import importlib

    owner, _, name = path.rpartition(".")
    return importlib.import_module(owner), name


def _printed() -> Iterator[Capture]:
    made = Capture()
    yield made
    made.close()


def _patched() -> Iterator[MonkeyPatch]:
    made = MonkeyPatch()
    yield made
    made.close()


def _folder() -> Any:
    import pathlib
    import tempfile  # with its libraries it would make every fork of the zygote dearer

    return pathlib.Path(tempfile.mkdtemp())


def builtin_fixtures() -> dict[str, Callable[..., Any]]:
    """Those that pytest brings along."""
    return {
        "capsys": _printed, "capfd": _printed, "monkeypatch": _patched, "tmp_path": _folder,
        "benchmark": lambda: lambda function, *args, **keywords: function(*args, **keywords),
        "request": lambda: types.SimpleNamespace(param=None),
    }  # fmt: skip


class Scope:
    """The fixtures of one test: made when asked for, undone at its end."""

    def __init__(self, known: Mapping[str, Callable[..., Any]], given: Mapping[Any, Any]) -> None:
        """`given`: values by name, of parametrize; by the fixture's function, of its `params`."""
        self._known = known
        self._values: dict[Hashable, Any] = dict(given)
        self._open: list[Iterator[Any]] = []

    def __enter__(self) -> Scope:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        for each in reversed(self._open):
            next(each, None)

    def use_automatic(self) -> None:
        """Those that apply to every test."""
        for name, function in self._known.items():
            if marks_of(function).get("fixture", {}).get("autouse"):
                self.get(name)

    def get(self, name: str) -> Any:
        """The value of a fixture, made once a test. TestFault for one that is not there."""
        if name not in self._values:
            if name not in self._known:
                raise TestFault(f"the test wants a fixture {name!r} that nothing defines")
            function = self._known[name]
            made = function(**{each: self._argument(function, each) for each in inspect.signature(function).parameters})
            if inspect.isgenerator(made):
                self._open.append(made)
                made = next(made)
            self._values[name] = made
        return self._values[name]

    def _argument(self, function: Callable[..., Any], name: str) -> Any:
        if name == "request":
            return types.SimpleNamespace(param=self._values.get(function))
        return self.get(name)
