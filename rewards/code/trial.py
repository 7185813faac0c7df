"""One program on one test: run it, then compare what came out."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

from rayzero.rewards.base import INLINE_CHARS, as_reason
from rayzero.rewards.code.checkers import CHECKER_DEADLINE_S, CheckerError, CheckerReply, ListedCheckers
from rayzero.rewards.code.compare import text_equal, value_equal
from rayzero.rewards.code.languages.base import Language, Prepared
from rayzero.rewards.code.spec import AssertTest, CallTest, Checker, CodeSpec, OperationsTest, StdinTest, Test
from rayzero.rewards.sandbox.client import Sandbox
from rayzero.rewards.sandbox.inside import wire
from rayzero.rewards.sandbox.limits import MIB, Limits, Outcome
from rayzero.services.schema.config.sandbox import SandboxSettings

PASS, FAIL, ERROR = "pass", "fail", "error"
_ENDINGS = {
    "cpu": "time limit: more CPU than allowed",
    "wall": "time limit: asleep or waiting past the wall limit",
    "memory": "memory limit",
    "output": "output limit",
    "processes": "process limit",
    "files": "file limit: more or larger files than allowed",
}


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """A test's result."""

    __test__ = False  # not a test class, whatever its name looks like

    status: str
    reason: str = ""
    cause: str = ""
    """Of an error: sandbox, spec."""
    seconds: float = 0.0
    cpu_s: float = 0.0

    def row(self) -> dict[str, Any]:
        """For the verdict."""
        return {
            "status": self.status,
            "reason": self.reason,
            "seconds": round(self.seconds, 4),
            "cpu_s": round(self.cpu_s, 4),
        }


class Trial:
    """A program and its spec in the sandbox."""

    def __init__(
        self,
        sandbox: Sandbox,
        settings: SandboxSettings,
        spec: CodeSpec,
        program: str,
        packages: str,
        checkers: ListedCheckers,
    ) -> None:
        """Runs nothing yet. `packages`: the folder, as boxes see it, of what may be imported besides."""
        self.spec = spec
        self._sandbox = sandbox
        self._settings = settings
        self._program = program
        self._packages = packages
        self._checkers = checkers
        self._used_cpu_s = 0.0
        self._used_wall_s = 0.0
        self._limits = self._make_limits()

    def _make_limits(self) -> Limits:
        settings = self._settings
        cpu_s = self.spec.time_limit_s or settings.time_limit_s
        memory_bytes = (self.spec.memory_mb or settings.memory_mb) * MIB
        return Limits(
            cpu_s=cpu_s,
            wall_s=self.spec.wall_limit_s or cpu_s * settings.wall_factor + settings.wall_slack_s,
            memory_bytes=memory_bytes,
            num_processes=settings.num_processes,
            file_bytes=settings.file_mb * MIB,
            output_bytes=settings.output_kb * 1024,
            stack_bytes=64 * MIB,
        )

    @property
    def is_exhausted(self) -> bool:
        """Whether the failed tests have used up `sandbox.total_factor` limits of one test. A test that passed does not
        count: its own limit bounds it."""
        factor = self._settings.total_factor
        return self._used_cpu_s > factor * self._limits.cpu_s or self._used_wall_s > factor * self._limits.wall_s

    async def run(self, test: Test, language: Language | None, prepared: Prepared | None) -> TestResult:
        """One test. A failure of the machine, or of the test itself, is a result `error`, never `fail`."""
        result, wall_s = await (
            self._assert(test) if isinstance(test, AssertTest) else self._try(test, language, prepared)
        )
        if result.status != PASS:
            self._used_cpu_s += result.cpu_s
            self._used_wall_s += wall_s
        return result

    async def _try(
        self, test: StdinTest | CallTest | OperationsTest, language: Language | None, prepared: Prepared | None
    ) -> tuple[TestResult, float]:
        expected = test.expected if isinstance(test, StdinTest) else json.dumps(test.expected)
        # A flood ends the run at once; an honest answer of another length than expected is still seen whole.
        limits = replace(self._limits, output_bytes=max(self._limits.output_bytes, 8 * len(expected)))
        if language is not None and prepared is not None and not isinstance(test, OperationsTest):
            outcome = await self._program_run(test, language, prepared, limits)
        else:
            outcome = await self._python_run(test, limits)
        failed = _ended_badly(outcome)
        result = failed or await self._compare(test, outcome, is_python=language is None)
        return result, outcome.wall_s

    async def _python_run(self, test: StdinTest | CallTest | OperationsTest, limits: Limits) -> Outcome:
        job: dict[str, Any] = {"source": self._program, "packages": self._packages}
        if isinstance(test, StdinTest):
            return await self._sandbox.python({**job, "mode": "stdio"}, limits, _stdin(test))
        if isinstance(test, OperationsTest):
            given = [[wire.encode(argument) for argument in arguments] for arguments in test.args]
            job |= {"mode": "operations", "operations": test.operations, "args": given}
        else:
            job |= {"mode": "call", "call": test.call, "args": [wire.encode(argument) for argument in test.args]}
        return await self._sandbox.python(job, limits)

    async def _program_run(
        self, test: StdinTest | CallTest, language: Language, prepared: Prepared, limits: Limits
    ) -> Outcome:
        stdin = _stdin(test) if isinstance(test, StdinTest) else json.dumps(test.args).encode()
        return await self._sandbox.program(
            prepared.argv,
            language.limits(limits),
            stdin=stdin,
            mounts=prepared.mounts,
            roots=prepared.roots,
            files=prepared.files,
        )

    async def _assert(self, test: AssertTest) -> tuple[TestResult, float]:
        prelude = test.prelude if test.prelude is not None else self.spec.prelude
        entry_point = test.entry_point if test.entry_point is not None else self.spec.entry_point
        program = {"mode": "serve", "source": self._program, "packages": self._packages}
        check = {
            "mode": "check", "test": test.code, "prelude": prelude, "entry_point": entry_point,
            "packages": self._packages,
        }  # fmt: skip
        ran, judged = await self._sandbox.pair(program, check, self._limits)
        return _asserted(ran, judged), max(ran.wall_s, judged.wall_s)

    async def _compare(
        self, test: StdinTest | CallTest | OperationsTest, outcome: Outcome, *, is_python: bool
    ) -> TestResult:
        """Large outputs are compared in a thread: this event loop also keeps deadlines."""
        if len(outcome.stdout) + len(outcome.result) > INLINE_CHARS:
            compared = await asyncio.to_thread(self._compared, test, outcome, is_python)
        else:
            compared = self._compared(test, outcome, is_python)
        if isinstance(compared, TestResult):
            return compared
        checker, given, output = compared
        return await self._custom(checker, given, output, test.expected, outcome)

    def _compared(
        self, test: StdinTest | CallTest | OperationsTest, outcome: Outcome, is_python: bool
    ) -> TestResult | tuple[Checker, Any, Any]:
        """The result, or what a custom checker is to be asked. Whatever a program returns has one."""
        checker = test.checker or self.spec.checker
        try:
            if isinstance(test, StdinTest):
                output: Any = outcome.stdout.decode(errors="replace") if checker.custom else outcome.stdout
                given: Any = test.stdin
                equal = not checker.custom and text_equal(output, test.expected, checker)
                shown = f"wrong output: {_excerpt(outcome.stdout)}"
            else:
                output = _returned(test, outcome, is_python)
                given = test.args if isinstance(test, CallTest) else [test.operations, test.args]
                equal = not checker.custom and value_equal(output, test.expected, checker)
                shown = "" if equal else f"wrong value: {_spelt(output)}"
        except wire.WireError as error:
            return _result(FAIL, f"no usable value returned: {error}", outcome)
        except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError, MemoryError) as error:
            return _result(FAIL, f"the output cannot be compared: {type(error).__name__}: {error}", outcome)
        if checker.custom:
            return checker, given, output
        return _result(PASS, "", outcome) if equal else _result(FAIL, shown, outcome)

    async def _custom(self, checker: Checker, given: Any, output: Any, expected: Any, outcome: Outcome) -> TestResult:
        assert checker.custom is not None
        try:
            if checker.function:
                said = await self._checkers.judge(checker.function, given, output, expected)
            else:
                said = await self._boxed(checker.custom, given, output, expected)
        except wire.WireError as error:
            return _result(FAIL, f"no usable value returned: {error}", outcome)
        except CheckerError as error:
            return _result(ERROR, f"the custom checker gave no verdict: {error}", outcome)
        return _result(PASS if said.passed else FAIL, said.reason, outcome)

    async def _boxed(self, source: str, given: Any, output: Any, expected: Any) -> CheckerReply:
        """A checker given as source, in a box of its own. One that gives no verdict on the output but one on the
        expected output has met a wrong output."""
        said = await self._asked(source, given, output, expected)
        if isinstance(said, bool):
            return CheckerReply(passed=said, reason="" if said else "refused by the custom checker")
        if isinstance(other := await self._asked(source, given, expected, expected), bool):
            return CheckerReply(passed=False, reason=f"the custom checker cannot read the output: {said}")
        raise CheckerError(other)

    async def _asked(self, source: str, given: Any, output: Any, expected: Any) -> bool | str:
        """What the checker says; a text where it says nothing of use."""
        args = [wire.encode(given), wire.encode(output), wire.encode(expected)]
        job = {"mode": "call", "source": source, "call": "check", "args": args}
        checked = await self._sandbox.python(job, replace(self._limits, cpu_s=10, wall_s=CHECKER_DEADLINE_S))
        if checked.is_infrastructure:
            raise CheckerError(checked.detail or checked.ended)
        answer = wire.only_frame(checked.result)
        if checked.ended == "exited" and isinstance(answer, dict) and type(answer.get("value")) is bool:
            return bool(answer["value"])
        told = answer.get("error") if isinstance(answer, dict) else None
        return str(told or checked.detail or checked.ended)


def _asserted(ran: Outcome, judged: Outcome) -> TestResult:
    """What the box of the test says (`judged`), unless the program's (`ran`) ended it."""
    for outcome in (judged, ran):
        if outcome.is_infrastructure:
            return _result(ERROR, outcome.detail or outcome.ended, outcome)
    if ran.ended in _ENDINGS:
        return _result(FAIL, _ENDINGS[ran.ended], ran)
    answer = wire.only_frame(judged.result)
    if isinstance(answer, dict) and judged.ended == "exited" and judged.code == 0:
        if answer.get("passed") is True:
            return _result(PASS, "", ran)
        if answer.get("fault") is True:
            return replace(_result(ERROR, str(answer.get("reason")), ran), cause="spec")
    reason = answer.get("reason") if isinstance(answer, dict) else None
    return _result(FAIL, str(reason or f"the test did not finish: {_ENDINGS.get(judged.ended, judged.ended)}"), ran)


def _ended_badly(outcome: Outcome) -> TestResult | None:
    if outcome.is_infrastructure:
        return _result(ERROR, outcome.detail or outcome.ended, outcome)
    if outcome.ended in _ENDINGS:
        return _result(FAIL, _ENDINGS[outcome.ended], outcome)
    if outcome.code != 0:
        answer = wire.only_frame(outcome.result)
        told = str(answer["error"]) if isinstance(answer, dict) and "error" in answer else ""
        told = told or outcome.stderr.decode(errors="replace").strip()[-300:]
        how = f"killed by signal {-outcome.code}" if outcome.code < 0 else f"exit status {outcome.code}"
        return _result(FAIL, f"{how}: {told}" if told else how, outcome)
    return None


def _returned(test: CallTest | OperationsTest, outcome: Outcome, is_python: bool) -> Any:
    """The value (or the argument asked for), of builtin types; WireError where the bytes spell none."""
    answer = wire.only_frame(outcome.result) if is_python else wire.loads(outcome.stdout)
    if not isinstance(answer, dict) or "value" not in answer:
        told = answer.get("error") if isinstance(answer, dict) else None
        raise wire.WireError(str(told or "the call did not return"))
    tree = answer["value"]
    if isinstance(test, CallTest) and test.argument is not None:
        arguments = answer.get("args")
        if not isinstance(arguments, list) or not 0 <= test.argument < len(arguments):
            raise wire.WireError(f"no argument {test.argument}")
        tree = arguments[test.argument]
    return wire.decode(tree) if is_python else tree


def _result(status: str, reason: str, outcome: Outcome) -> TestResult:
    cause = "sandbox" if status == ERROR else ""
    return TestResult(
        status=status, reason=as_reason(reason[:600]), cause=cause, seconds=outcome.wall_s, cpu_s=outcome.cpu_s
    )


def _stdin(test: StdinTest) -> bytes:
    try:
        return test.stdin.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a pair: no byte stands for it
        return test.stdin.encode(errors="replace")


def _excerpt(output: bytes) -> str:
    return repr(output[:120].decode(errors="replace")) + (" …" if len(output) > 120 else "")


def _spelt(value: Any) -> str:
    try:
        return repr(value)[:120]
    except Exception:
        return f"a {type(value).__name__}"
