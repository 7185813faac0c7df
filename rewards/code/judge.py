"""Programs against tests: the code reward's judge.

    completion -> program -> (build) -> one sandboxed run a test -> compare, outside -> CodeVerdict

Expected outputs stay in this process (or, for assertions, in a box that the program cannot see): what comes back from
the program's box is bytes, and only their value counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rayzero.rewards.base import as_reason
from rayzero.rewards.code import spec as specs
from rayzero.rewards.code.checkers import ListedCheckers
from rayzero.rewards.code.languages.base import BuildError, BuildFailure, Language, Prepared, ToolchainError
from rayzero.rewards.code.languages.registry import find, languages
from rayzero.rewards.code.program import NoProgramError, extract
from rayzero.rewards.code.spec import AssertTest, CallTest, CodeSpec, OperationsTest, SpecError, StdinTest, Test
from rayzero.rewards.code.trial import ERROR, FAIL, PASS, TestResult, Trial
from rayzero.rewards.code.wanted import bare, called_names, reads_stdin
from rayzero.rewards.sandbox.client import Sandbox, SandboxConfig
from rayzero.rewards.sandbox.limits import MIB, Limits
from rayzero.rewards.sandbox.packages import PackageError
from rayzero.services.schema.config.sandbox import SandboxSettings
from rayzero.services.schema.messages import VerdictStatus


@dataclass(frozen=True, kw_only=True)
class CodeVerdict:
    """What the tests say of one program."""

    status: VerdictStatus
    """`correct` when every test passed; `error` when the machine or the spec was at fault."""
    passed: int
    total: int
    score: float
    """1 or 0, or the fraction passed where the spec says so; 0 with status `error`, where it means nothing."""
    reason: str
    cause: str = ""
    """Of an error, in one word: spec, toolchain, sandbox."""
    seconds: float = 0.0
    tests: tuple[Mapping[str, Any], ...] = ()
    """By test: `{"status": "pass" | "fail" | "error" | "skipped", "reason": ..., "seconds": wall, "cpu_s": ...}`."""


class CodeJudge:
    """Judges programs, many at a time. Use from one event loop; `close` ends the sandbox."""

    def __init__(self, settings: SandboxSettings | None = None, checkers: Sequence[str] = ()) -> None:
        """Nothing starts before the first program (or `start`). `checkers`: `module:function`, those that a spec may
        name."""
        self.settings = settings or SandboxSettings()
        self._checkers = ListedCheckers(checkers, num_children=self.settings.num_workers or 1)
        self._sandbox = Sandbox(
            SandboxConfig(
                backend=self.settings.backend,
                python=self.settings.python,
                num_workers=self.settings.num_workers,
                tmp_bytes=self.settings.file_mb * MIB,
            )
        )
        self._languages = languages()
        self._verdicts: OrderedDict[str, asyncio.Future[CodeVerdict]] = OrderedDict()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the sandbox's supervisor, while it runs."""
        return self._sandbox.pids

    async def start(self) -> str:
        """Start the sandbox now; the backend's name. SandboxRefusedError where this machine cannot isolate."""
        return await self._sandbox.start()

    async def close(self) -> None:
        """End the sandbox and everything in it."""
        await self._checkers.close()
        await self._sandbox.close()

    async def run(self, text: str, spec: Any, *, is_program: bool = False) -> CodeVerdict:
        """Judge a completion (or, with `is_program`, a bare program) by `spec` (see CodeSpec).

        Whatever the program does, this returns a verdict. SandboxRefusedError where this machine cannot isolate: a
        set-up to mend, not a verdict.
        """
        started = time.monotonic()
        try:
            parsed = specs.parse(spec)
            find(self._languages, parsed.language)
            self._checkers.require(parsed)
        except SpecError as error:
            return _without_tests(VerdictStatus.ERROR, 0, str(error), "spec")
        try:
            program = text if is_program else extract(
                text, parsed.language, names=called_names(parsed), reads=reads_stdin(parsed)
            )  # fmt: skip
        except NoProgramError as error:
            return _without_tests(VerdictStatus.WRONG, len(parsed.tests), str(error))
        verdict = await self._once(program, parsed)
        return replace(verdict, seconds=time.monotonic() - started)

    async def _once(self, program: str, spec: CodeSpec) -> CodeVerdict:
        """Share the verdict of an identical pair that is being judged or was; errors are not remembered."""
        text = json.dumps([program, spec.model_dump(mode="json", by_alias=True)], sort_keys=True)
        key = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
        known = self._verdicts.get(key)
        if known is not None and not known.cancelled():
            self._verdicts.move_to_end(key)
            return await asyncio.shield(known)
        task = asyncio.ensure_future(self._judge(program, spec))
        self._verdicts[key] = task
        while len(self._verdicts) > max(self.settings.cache_verdicts, 1) and next(iter(self._verdicts.values())).done():
            self._verdicts.popitem(last=False)
        try:
            verdict = await asyncio.shield(task)
        except Exception:
            self._verdicts.pop(key, None)
            raise
        if verdict.status is VerdictStatus.ERROR or not self.settings.cache_verdicts:
            self._verdicts.pop(key, None)
        return verdict

    async def _judge(self, program: str, spec: CodeSpec) -> CodeVerdict:
        language = find(self._languages, spec.language)
        built: dict[str | None, Prepared] = {}
        try:
            packages = await self._sandbox.packages((*self.settings.packages, *spec.packages))
            prepared = await self._prepare(language, program, spec, built)
            trial = Trial(self._sandbox, self.settings, spec, program, packages, self._checkers)
            return _sum_up(spec, await self._try_all(trial, language, prepared))
        except BuildError as error:
            return _without_tests(VerdictStatus.WRONG, len(spec.tests), str(error))
        except SpecError as error:
            return _without_tests(VerdictStatus.ERROR, len(spec.tests), str(error), "spec")
        except (ToolchainError, PackageError) as error:
            return _without_tests(VerdictStatus.ERROR, len(spec.tests), str(error), "toolchain")
        except BuildFailure as error:
            return _without_tests(VerdictStatus.ERROR, len(spec.tests), f"could not compile: {error}", "sandbox")
        finally:
            await self._sandbox.release([key for each in built.values() for key in each.mounts.values()])

    async def _prepare(
        self, language: Language | None, program: str, spec: CodeSpec, built: dict[str | None, Prepared]
    ) -> list[Prepared | None]:
        """What runs each test; `built` once for all stdin tests, and once for each function called. A failure of the
        machine: twice."""
        if language is None:
            return [None] * len(spec.tests)
        for test in spec.tests:
            if isinstance(test, AssertTest):
                raise SpecError(f"assertions are Python, not {language.name}")
            if isinstance(test, OperationsTest):
                raise SpecError(f"operations are for Python programs, not {language.name}")
            call = None if isinstance(test, StdinTest) else bare(test.call)
            if call not in built:
                try:
                    built[call] = await language.prepare(self._sandbox, program, call, self._build_limits())
                except BuildFailure:
                    built[call] = await language.prepare(self._sandbox, program, call, self._build_limits())
        return [built[bare(test.call) if isinstance(test, CallTest) else None] for test in spec.tests]

    def _build_limits(self) -> Limits:
        cpu_s = self.settings.compile_time_s
        memory_bytes = self.settings.compile_memory_mb * MIB
        return Limits(
            cpu_s=cpu_s, wall_s=3 * cpu_s, memory_bytes=memory_bytes, file_bytes=64 * MIB, stack_bytes=64 * MIB
        )

    async def _try_all(
        self, trial: Trial, language: Language | None, prepared: list[Prepared | None]
    ) -> list[TestResult]:
        """Tests in order; the first that fails (or the total limit) ends it where the spec says so."""
        results: list[TestResult] = []
        tests: list[Test] = list(trial.spec.tests)
        for test, how in zip(tests, prepared, strict=True):
            if results and trial.spec.stops_early and results[-1].status != PASS:
                break
            if trial.is_exhausted:
                results.append(TestResult(status=FAIL, reason="the tests that failed have used up the total limit"))
                break
            result = await trial.run(test, language, how)
            if result.status == ERROR and result.cause != "spec":
                result = await trial.run(test, language, how)
            results.append(result)
        return results


def _sum_up(spec: CodeSpec, results: list[TestResult]) -> CodeVerdict:
    total = len(spec.tests)
    passed = sum(result.status == PASS for result in results)
    bad = next((index for index, result in enumerate(results) if result.status != PASS), None)
    status = VerdictStatus.CORRECT if passed == total else VerdictStatus.WRONG
    reason = f"passed {passed} of {total} tests"
    if bad is not None:
        reason += f"; test {bad + 1}: {results[bad].reason}"
    # One verdict of the machine among them and the sum says nothing, unless a test has failed anyway and nothing less
    # than all counts.
    failed = any(result.status == FAIL for result in results)
    if any(result.status == ERROR for result in results) and not (failed and spec.scoring == "all"):
        status = VerdictStatus.ERROR
    rows = [result.row() for result in results]
    rows += [{"status": "skipped", "reason": "", "seconds": 0.0, "cpu_s": 0.0}] * (total - len(rows))
    score = passed / total if spec.scoring == "fraction" else float(passed == total)
    is_error = status is VerdictStatus.ERROR
    cause = next((result.cause for result in results if result.cause), "sandbox") if is_error else ""
    return CodeVerdict(
        status=status, passed=passed, total=total, score=0.0 if is_error else score, reason=as_reason(reason),
        cause=cause, tests=tuple(rows),
    )  # fmt: skip


def _without_tests(status: VerdictStatus, total: int, reason: str, cause: str = "") -> CodeVerdict:
    rows = [{"status": "skipped", "reason": "", "seconds": 0.0, "cpu_s": 0.0}] * total
    return CodeVerdict(
        status=status, passed=0, total=total, score=0.0, reason=as_reason(reason), cause=cause, tests=tuple(rows)
    )
