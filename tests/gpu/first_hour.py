"""`tests/gpu/first_hour.sh`: everything that only a GPU can tell, the cheapest and most telling first, unattended.

Standard library alone until a step begins: see hour/runner.py; the steps are listed in hour/programs.py.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.gpu.hour.programs import PROGRAMS
from tests.gpu.hour.report import Report
from tests.gpu.hour.runner import Runner
from tests.gpu.hour.steps import Device, Program, Step

EPILOG = """examples:
  tests/gpu/first_hour.sh --budget 560 --out "$OUT"                  what fits one call of ten minutes
  tests/gpu/first_hour.sh --budget 300 --from sleep --out "$OUT"     go on from there in the next one
  tests/gpu/first_hour.sh --only learner                             one step again
  tests/gpu/first_hour.sh --device cpu --budget 900                  its small form, on a machine without a GPU
  PYTHON=/tmp/rz/bin/python tests/gpu/first_hour.sh                  with this Python

OUT/{program}.json and OUT/{program}.md grow after every step; OUT/STEP/ has each step's log, figures, metrics.jsonl.
A step that would pass the budget by its own estimate is left out and named; one that hangs is killed with its children.
A missed target is no failure: it is in the tables, with a profile where the step has one.
exit: 0 when every step that ran was good, 1 otherwise, 2 when nothing could run. Ctrl-C ends the step in hand and keeps
the tables.

steps, with their estimates on an H200 (and those of their small form on two CPU cores):
{steps}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """See `--help`."""
    given = parse(arguments)
    program = PROGRAMS[given.program]
    device: Device = given.device or ("cuda" if count_gpus() or program.num_gpus > 1 else "cpu")
    try:
        steps = chosen(program, given.start, given.only)
        check_gpus(program, device)
    except ValueError as error:
        print(f"{program.name}.sh: {error}", file=sys.stderr)
        return 2
    out = (given.out or Path("runs") / program.name).resolve()
    python = f"Python {sys.version.split()[0]} ({sys.executable})"
    report = Report(out, program, device, python, go_on=bool(given.start or given.only))
    print(f"{program.title} on {device}: {given.budget:.0f} s, {python}; tables in {report.markdown}", flush=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: what is under way is ended, the tables stay
    scratch = Path(tempfile.mkdtemp(prefix="rayzero-hour-"))
    try:
        Runner(report, scratch, given.budget).run(steps)
    except KeyboardInterrupt:
        print("ended; the tables have what there was", file=sys.stderr)
        return 1
    finally:
        report.write()
        shutil.rmtree(scratch, ignore_errors=True)
    return 0 if report.is_good(steps) else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--program", choices=PROGRAMS, default="first_hour", help=argparse.SUPPRESS)
    program = PROGRAMS[first.parse_known_args(arguments)[0].program]
    parser = argparse.ArgumentParser(
        prog=f"{program.name}.sh",
        parents=[first],
        description=f"{program.title}: every step in a process of its own, bounded, whatever became of the others.",
        epilog=EPILOG.format(program=program.name, steps="\n".join(map(_described, program.steps))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--budget", type=float, default=900.0, metavar="SECONDS", help="for all of it (default: 900)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--from", dest="start", metavar="STEP", help="begin with this step")
    which.add_argument("--only", metavar="STEP", help="this step alone")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where nvidia-smi lists a GPU")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"where the tables go (default: runs/{program.name})")
    return parser.parse_args(arguments)


def chosen(program: Program, start: str | None, only: str | None) -> Sequence[Step]:
    """The steps to run.

    Raises:
        ValueError: there is no such step.
    """
    if only is not None:
        return [program.steps[program.step(only)]]
    return program.steps[0 if start is None else program.step(start) :]


def check_gpus(program: Program, device: Device) -> None:
    """Raise ValueError where the program cannot run at all, with what it needs and what is there."""
    there = count_gpus()
    if device == "cuda" and there < program.num_gpus:
        number = {1: "a GPU", 2: "two GPUs"}[program.num_gpus]
        raise ValueError(f"needs {number}, and nvidia-smi lists {there or 'none'} here: nothing was run")
    if device == "cpu" and not any(step.cpu_s is not None for step in program.steps):
        raise ValueError("no step of it has a form for CPUs: nothing was run")


def count_gpus() -> int:
    """As nvidia-smi lists them; 0 where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return 0
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False).stdout
    return sum(line.startswith("GPU ") for line in listing.splitlines())


def _described(step: Step) -> str:
    small = "" if step.cpu_s is None else f" ({step.cpu_s:.0f} s)"
    return f"  {step.name:<12}{step.cuda_s:4.0f} s{small:<8} {step.what}"


if __name__ == "__main__":
    sys.exit(main())
