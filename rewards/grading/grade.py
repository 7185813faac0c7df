"""`rayzero grade`: grades a file of completions. Starts no Ray, imports no torch.

    lines ─► read ─► window of cases under way ─► verdicts, in the order of the lines

Verdicts are streamed to `OUT.partial`, which becomes OUT when the last one is written: OUT is always complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rayzero.rewards.base import Case, Context, Reward, Score, failed
from rayzero.rewards.grading.case_lines import (
    AS_THEY_ARE,
    FALLBACKS,
    READERS,
    BrokenLine,
    GradeLine,
    LineForm,
    read_line,
    write_line,
)
from rayzero.rewards.grading.line_files import FileRefused, InputLines, OutputLines
from rayzero.rewards.grading.progress_bar import Bar, progress_bar, say
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.errors import RayzeroError

REWARDS = tuple(READERS)
MODULE_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
WINDOW_LINES = 4096
WINDOW_BYTES = 64 * 2**20
"""Cases under way at a time: so many that one which hangs does not hold up the rest, so few that memory is bounded."""

EXIT_OK, EXIT_BROKEN_LINES, EXIT_REFUSED, EXIT_INTERRUPTED = 0, 1, 2, 130


def run(
    reward: str,
    in_path: str | Path,
    out_path: str | Path,
    workers: int | None = None,
    *,
    form: LineForm = AS_THEY_ARE,
    make: Callable[[str, int], Reward] | None = None,
    progress: bool | None = None,
    checkers: Sequence[str] = (),
) -> int:
    """Grade every line of `in_path` into `out_path` (`-`: standard input, standard output); returns the exit code.

    0 when every line was graded, also as `error`; 1 when a line was broken or not all could be written; 2 when the
    arguments are refused; 130 when interrupted. `workers`: cases graded at a time, by default one a CPU. `form`: where
    in a line its keys stand, and its fallbacks. `make(reward, workers)` builds the reward, by default `default_reward`.
    `checkers`: functions that lines of the code reward may name. `progress`: draw a bar on standard error, by
    default where that is a terminal.
    """
    if reward not in READERS and not MODULE_FUNCTION.fullmatch(reward):
        return _refuse(f"unknown reward {reward!r}: choose one of {', '.join(REWARDS)}, or name your module:function")
    for name in checkers:
        if not MODULE_FUNCTION.fullmatch(name):
            return _refuse(f"--checker is module:function, not {name!r}")
    if workers is not None and workers < 1:
        return _refuse(f"--workers must be at least 1, not {workers}")
    if unknown := [name for name in form.fallbacks if name not in FALLBACKS]:
        return _refuse(f"--fallback {unknown[0]}: choose of {', '.join(FALLBACKS)}")
    if form.fallbacks and reward != "math":
        return _refuse("--fallback is for --reward math; lines for exact, choice and regex may carry `answer_from`")
    try:
        with InputLines(in_path) as lines, OutputLines(out_path) as output:
            bar = progress_bar(lines.count, sys.stderr.isatty() if progress is None else progress)
            with bar:
                build = partial(make or partial(default_reward, checkers=checkers), reward, workers or num_cpus())
                return asyncio.run(_grade(_Grader(reward, build, form), lines, output, bar))
    except FileRefused as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_BROKEN_LINES
    except (OSError, RayzeroError) as error:
        say(f"rayzero grade: {error}")
        return EXIT_BROKEN_LINES


def default_reward(name: str, num_workers: int, *, checkers: Sequence[str] = ()) -> Reward:
    """A reward as a recipe has it by default. Imports no more than it needs: one case must not wait for the rest."""
    if name == "format":
        from rayzero.rewards.kinds.format import FormatReward

        return FormatReward()
    if name == "language":
        from rayzero.rewards.kinds.language import LanguageReward

        return LanguageReward(target_column="target")
    if name not in READERS:
        from rayzero.rewards.registry import Capacity, build_reward
        from rayzero.services.schema.config.reward_components import CustomComponent

        return build_reward(CustomComponent(function=name), Capacity(num_children=num_workers))
    if name == "math":
        from rayzero.rewards.kinds.math_reward import math_reward

        return math_reward(num_children=num_workers, fallback_column="fallback")
    if name != "code":
        from rayzero.rewards.grading.line_settings import LineSettingsReward

        return LineSettingsReward(name, num_workers)
    from rayzero.rewards.kinds.code_reward import code_reward

    return code_reward(num_parallel=num_workers, bare_column="bare", checkers=checkers)


async def _grade(grader: _Grader, lines: InputLines, output: OutputLines, bar: Bar) -> int:
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    interrupted: list[int] = []

    def interrupt(number: int) -> None:
        interrupted.append(number)
        if task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, RuntimeError):  # only the main thread may handle signals
            loop.add_signal_handler(number, interrupt, number)
    try:
        return await _stream(grader, lines, output, bar)
    except asyncio.CancelledError:
        if not interrupted:
            raise
        bar.say(f"rayzero grade: interrupted; the verdicts so far are in {output.unfinished}")
        return 128 + interrupted[0]
    finally:
        await grader.close()


async def _stream(grader: _Grader, lines: InputLines, output: OutputLines, bar: Bar) -> int:
    """Keep the window full, write what is done at its head."""
    window: deque[tuple[GradeLine, asyncio.Task[Score]]] = deque()
    num_bytes = num_broken = 0

    async def write_head() -> int:
        line, task = window.popleft()
        output.write(write_line(line.line_id, grader.name, await task))
        bar.advance()
        return len(line.case.text)

    for number, raw in lines:
        try:
            line = read_line(raw, grader.name, grader.form)
        except BrokenLine as error:
            num_broken += 1
            bar.advance()
            bar.say(f"{lines.name}:{number}: {error}")
            continue
        window.append((line, await grader.grade(line)))
        num_bytes += len(line.case.text)
        while window and (len(window) > WINDOW_LINES or num_bytes > WINDOW_BYTES or window[0][1].done()):
            num_bytes -= await write_head()
        if number % 64 == 0:
            await asyncio.sleep(0)  # children answer and deadlines run out while a long file is read
    while window:
        await write_head()
    output.complete()
    if num_broken:
        bar.say(f"rayzero grade: {num_broken} broken line{'s' if num_broken > 1 else ''} of {lines.name} not graded")
    return EXIT_BROKEN_LINES if num_broken else EXIT_OK


@dataclass(slots=True)
class _Grader:
    """One reward, asked once for equal cases."""

    name: str
    make: Callable[[], Reward]
    form: LineForm
    reward: Reward | None = None
    known: dict[bytes, asyncio.Task[Score]] = field(default_factory=dict)

    async def grade(self, line: GradeLine) -> asyncio.Task[Score]:
        """Begin; lines that differ only in their id share one task. The first line makes and starts the reward.

        Raises ActorStartError where the reward cannot work at all, e.g. because this machine cannot isolate programs.
        """
        if self.reward is None:
            self.reward = self.make()
            await self.reward.start()
        task = self.known.get(line.digest)
        if task is None:
            task = self.known[line.digest] = asyncio.create_task(self._score(self.reward, line.case))
            if len(self.known) > 16 * WINDOW_LINES:
                self.known.pop(next(iter(self.known)))
        return task

    async def close(self) -> None:
        """End what is under way, then the children."""
        for task in self.known.values():
            task.cancel()
        await asyncio.gather(*self.known.values(), return_exceptions=True)
        if self.reward is not None:
            await self.reward.close()

    async def _score(self, reward: Reward, case: Case) -> Score:
        try:
            return (await reward.score([case], Context()))[0]
        except Exception as error:
            return failed(ErrorCause.EXCEPTION, f"{type(error).__name__}: {error}")


def num_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _refuse(message: str) -> int:
    say(f"rayzero grade: {message}")
    return EXIT_REFUSED
