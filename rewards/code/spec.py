"""What a program is held against: language, tests, limits, checker. Read from a prompt's answer or a line of `rayzero
grade`."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationError,
    model_validator,
)

from rayzero.rewards.code.spec_formats import normal
from rayzero.services.schema.config.base import Section
from rayzero.services.schema.config.sandbox import PackageName

_MODULE_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class SpecError(ValueError):
    """A spec that cannot be used: says which key and why."""


def _spelt_out(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class Checker(Section):
    """How an output is compared with the expected one. `"tokens"` is short for `{"kind": "tokens"}`."""

    kind: Literal["lines", "tokens", "exact", "unordered", "judge"] = "lines"
    """`lines`: equal but for blanks at line ends and blank lines at the end. `tokens`: white space is all one.
    `exact`: bytes.
    `unordered`: lines (or the elements of a list) in any order.
    `judge`: as contests compare: tokens, and numbers within 1e-6 where either has a point or an exponent.
    For calls all but `unordered` and `judge` mean equality of values."""
    float_tolerance: float | None = Field(default=None, ge=0)
    """Relative or absolute, for numbers where either spelling has a point or an exponent; implies tokens for text."""
    custom: str | None = None
    """Source with `def check(input, output, expected) -> bool`, run in a box of its own; or `module:function`, one of
    those that the recipe lists."""

    @property
    def function(self) -> str:
        """The `module:function` that it names; "" where it names none."""
        text = (self.custom or "").strip()
        return text if _MODULE_FUNCTION.fullmatch(text) else ""


CheckerField = Annotated[Checker, BeforeValidator(_spelt_out)]


class _Test(Section):
    model_config = ConfigDict(extra="ignore")

    checker: CheckerField | None = None
    """For this test alone."""


class StdinTest(_Test):
    """Feed stdin, compare stdout."""

    stdin: str
    expected: str


class CallTest(_Test):
    """Call a module function, or a method of `class Solution`, with JSON arguments; compare the returned value."""

    call: str
    args: list[JsonValue] = Field(default_factory=list)
    expected: JsonValue
    argument: int | None = None
    """Compare this argument as the call left it, instead of the returned value (for functions that work in place)."""


class OperationsTest(_Test):
    """Make an instance of the class that `operations` begins with, call its methods in turn; compare what each
    returned. As LeetCode's design problems are written: `["Box", "add"], [[1], [2]], [null, 3]`."""

    operations: list[str] = Field(min_length=1)
    args: list[list[JsonValue]]
    expected: list[JsonValue]

    @model_validator(mode="after")
    def _consistent(self) -> OperationsTest:
        if not len(self.operations) == len(self.args) == len(self.expected):
            raise ValueError("operations, args and expected must be equally long")
        return self


class AssertTest(_Test):
    """Python test code which calls the program: assertions, one expression to hold, a pytest file (`from solution
    import f`), unittest's TestCases, or `check(candidate)` with an `entry_point`."""

    code: str = Field(alias="assert")
    entry_point: str | None = None
    """For this test alone; see CodeSpec."""
    prelude: str | None = None
    """For this test alone; see CodeSpec."""


Test = StdinTest | OperationsTest | CallTest | AssertTest
_FORMS = {"stdin": StdinTest, "operations": OperationsTest, "call": CallTest, "assert": AssertTest}


def _form(test: Any) -> str | None:
    """Which form a test has, by the key that only that form has: what is wrong with it is said of that form."""
    if isinstance(test, dict):
        return next((key for key in _FORMS if key in test), "assert" if "code" in test else None)
    return next((key for key, form in _FORMS.items() if isinstance(test, form)), None)


AnyTest = Annotated[
    Annotated[StdinTest, Tag("stdin")]
    | Annotated[OperationsTest, Tag("operations")]
    | Annotated[CallTest, Tag("call")]
    | Annotated[AssertTest, Tag("assert")],
    Discriminator(
        _form,
        custom_error_type="test_form",
        custom_error_message="a test has `stdin` and `expected`, `call` and `expected`, `operations`, or `assert`",
    ),
]


class CodeSpec(Section):
    """One problem. Unknown keys are ignored: data rows carry columns of their own."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    language: str = "python"
    tests: list[AnyTest] = Field(min_length=1)
    time_limit_s: float | None = Field(default=None, gt=0, le=600)
    """CPU seconds a test."""
    wall_limit_s: float | None = Field(default=None, gt=0, le=3600)
    """Wall seconds a test; derived from the time limit by default."""
    memory_mb: int | None = Field(default=None, ge=16, le=65536)
    checker: CheckerField = Checker()
    scoring: Literal["all", "fraction"] = "all"
    early_exit: bool | None = None
    """Stop at the first test that fails; by default where scoring is all-or-nothing."""
    entry_point: str = ""
    """The one function that assertions call, whatever else the program defines."""
    packages: list[PackageName] = Field(default_factory=list)
    """Third-party packages that programs and assertions may import, besides those of the sandbox's settings."""
    prelude: str = ""
    """Definitions that assertions may use (HumanEval's prompt has some): the recipe's own, never the program's
    version of them."""

    @model_validator(mode="after")
    def _consistent(self) -> CodeSpec:
        if self.scoring == "fraction" and self.early_exit:
            raise ValueError("scoring: fraction needs every test, so early_exit must be off")
        return self

    @property
    def stops_early(self) -> bool:
        """Whether the first failure ends the judging."""
        return self.scoring == "all" if self.early_exit is None else self.early_exit


def parse(spec: Any) -> CodeSpec:
    """A CodeSpec from JSON; SpecError naming the key where it is none."""
    if isinstance(spec, CodeSpec):
        return spec
    try:
        parsed = CodeSpec.model_validate(normal(spec))
        json.dumps(parsed.model_dump(mode="json", by_alias=True), allow_nan=False)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SpecError(f"{where or 'spec'}: {first['msg']}") from error
    except RecursionError:
        raise SpecError("nested too deeply") from None
    except ValueError as error:
        raise SpecError(f"what JSON cannot spell: {error}") from error
    return parsed
