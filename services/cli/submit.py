"""`rayzero submit RECIPE`: the run as a Ray job, with all that such a job needs to end well."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayzero.services.observe.text import as_size
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.errors import DeadlineError, RunUnreachable, UsageError
from rayzero.services.schema.printable import printable

STOP_WAIT_S = 300
"""Ray gives a job that is stopped three seconds by itself: too few to finish an update and to save."""
EXCLUDES = (
    ".git",
    ".venv",
    "runs",
    "tests",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    "*.egg-info",
)
ENDED = frozenset({"SUCCEEDED", "STOPPED", "FAILED"})
ADDRESS_ENV = "RAY_API_SERVER_ADDRESS"
POLL_S = 2.0
BEGIN_S = 60.0
"""For a job to say its first lines: it imports rayzero first, on a busy node."""
LOST_S = 60.0
"""How long Ray may be silent while a job is followed: a busy head answers late, and one that restarts not at all."""
EXITS = {"SUCCEEDED": 0, "STOPPED": 130, "FAILED": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is submitted."""

    submission_id: str
    entrypoint: str
    runtime_env: Mapping[str, Any]
    entrypoint_resources: Mapping[str, float]

    def command_line(self, address: str) -> str:
        """The same by Ray's own command."""
        words = ["ray", "job", "submit", "--address", address, "--submission-id", self.submission_id]
        words += ["--working-dir", str(self.runtime_env["working_dir"])]
        rest = {key: value for key, value in self.runtime_env.items() if key != "working_dir"}
        words += ["--runtime-env-json", json.dumps(_without_secrets(rest))]
        if self.entrypoint_resources:
            words += ["--entrypoint-resources", json.dumps(dict(self.entrypoint_resources))]
        line = shlex.join(words)
        for name in rest.get("env_vars", {}):  # out of the single quotes, where a shell puts in no values
            line = line.replace(f'"${name}"', f'"\'"${name}"\'"')
        return f"{line} -- {self.entrypoint}"


def plan_job(
    recipe: Path, overrides: Sequence[str], runs: Path, submission_id: str | None, passed: Sequence[str], head: bool
) -> Job:
    """What to submit for a recipe, from the current directory.

    `passed` names environment variables that the driver is to have (tokens); `head` keeps the driver on the node that
    has the resource `head`.

    Raises:
        UsageError: the recipe is wrong, lies outside the directory, or a variable to pass is not set.
    """
    loaded = load_recipe(recipe, overrides)
    try:
        relative = recipe.resolve().relative_to(Path.cwd())
    except ValueError:
        raise UsageError(
            f"{recipe} lies outside {Path.cwd()}, which is what the job gets: submit from above it"
        ) from None
    missing = [name for name in passed if name not in os.environ]
    if missing:
        raise UsageError(f"--env {', '.join(missing)}: not set here")
    changes = list(overrides)
    if loaded.cluster.address is None:
        changes.append("cluster.address=auto")
    # Absolute: the job runs in a directory of its own, an unpacked copy of this one.
    words = ["python", "-m", "rayzero", "train", str(relative), *changes, "--runs", str(runs.resolve())]
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **{name: os.environ[name] for name in passed}}
    return Job(
        submission_id=submission_id or f"{loaded.name}-{time.strftime('%Y%m%d-%H%M%S')}",
        entrypoint=shlex.join(words),
        runtime_env={
            "working_dir": str(Path.cwd()),
            "excludes": [*EXCLUDES, *run_directories(Path.cwd(), runs)],
            "env_vars": variables,
        },
        entrypoint_resources={"head": 0.001} if head else {},
    )


def run_directories(place: Path, runs: Path) -> list[str]:
    """Where runs are kept below a directory, under whatever name: their checkpoints are not the next job's."""
    found = {file.parent for depth in ("*", "*/*", "*/*/*") for file in place.glob(f"{depth}/run.lock")}
    if runs.resolve().is_relative_to(place):
        found.add(runs.resolve())
    return sorted(str(folder.relative_to(place)) for folder in found if folder != place)


def _why_refused(error: Exception, job: Job) -> str:
    """Ray's last line, with what it leaves out: what is too large, or that the name is taken."""
    lines = [line for line in str(error).strip().splitlines() if line.strip(" .")]
    last = lines[-1].strip(" .") if lines else type(error).__name__
    if "413" in last or "maximum" in last.lower() or "too large" in last.lower():
        place = Path(job.runtime_env["working_dir"])
        largest = ", ".join(
            f"{name} ({as_size(size)})" for size, name in largest_entries(place, job.runtime_env["excludes"])
        )
        return f"{last}. The largest in {place}: {largest}; name what the job does not need in .rayignore"
    if not lines or "already exists" in str(error):
        return f"{last}: a job called {job.submission_id} is there already; give another --name"
    return last


def largest_entries(place: Path, excludes: Sequence[str], count: int = 3) -> list[tuple[int, str]]:
    """The largest files and folders at the top of a directory that would be uploaded, with their bytes."""
    sizes = []
    for entry in place.iterdir():
        if not any(entry.match(pattern) for pattern in excludes):
            files = entry.rglob("*") if entry.is_dir() else [entry]
            sizes.append((sum(file.stat().st_size for file in files if file.is_file()), entry.name))
    return sorted(sizes, reverse=True)[:count]


def submit(job: Job, address: str, wait: bool, as_json: bool) -> int:
    """Submit; with `wait` show its log to its end and return its exit code.

    Raises:
        RunUnreachable: no Ray answers at the address.
        UsageError: Ray refuses it.
    """
    client = connect(address)
    try:
        client.submit_job(
            entrypoint=job.entrypoint,
            submission_id=job.submission_id,
            runtime_env=dict(job.runtime_env),
            entrypoint_resources=dict(job.entrypoint_resources) or None,
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"Ray at {address} refuses the job: {_why_refused(error, job)}") from None
    if as_json:
        print(json.dumps({"submission_id": job.submission_id, "command": job.command_line(address)}))
    else:
        print(f"submitted as {job.submission_id}. The same by hand:\n  {job.command_line(address)}")
        for what in ("status", "logs --follow", "stop"):
            print(f"  ray job {what} --address {address} {job.submission_id}")
    if not wait:
        return begin(client, job.submission_id)
    try:
        return follow(client, job.submission_id, quiet=as_json)
    except KeyboardInterrupt:
        print(f"\n{job.submission_id} goes on; `ray job stop --address {address} {job.submission_id}` ends it")
        raise


def begin(client: Any, submission_id: str, deadline_s: float = BEGIN_S) -> int:
    """Wait until a job has begun, and say so; 0. Where it fails before that, show why; its exit code."""
    deadline = time.monotonic() + deadline_s
    seen = 0
    while time.monotonic() < deadline:
        try:
            info, said = client.get_job_info(submission_id), client.get_job_logs(submission_id)
        except (RuntimeError, OSError):  # a busy head answers late
            time.sleep(POLL_S)
            continue
        status = str(info.status.value)
        if status == "FAILED":
            print(printable(said.strip() or info.message), file=sys.stderr)
            print(f"{submission_id} failed as it began{_why_failed(said)}", file=sys.stderr)
            return info.driver_exit_code or EXITS[status]
        seen += bool(said.strip()) and status == "RUNNING"
        if status in ENDED or seen > 1:  # a first line alone may be the last
            print(f"it has begun ({status.lower()})", file=sys.stderr)
            return 0
        time.sleep(POLL_S)
    print(f"it has not begun within {deadline_s:g} s; `rayzero doctor --address` looks at each node", file=sys.stderr)
    return 0


def _why_failed(said: str) -> str:
    if "No module named" not in said and "not found" not in said:
        return ""
    return (
        ": the job's `python` is not the one that has rayzero. Activate that environment before `ray start` on each "
        "node; `rayzero doctor --address auto` shows which lack it"
    )


def connect(address: str) -> Any:
    """Ray's own client.

    Raises:
        RunUnreachable: no Ray answers, or it wants a token.
    """
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RunUnreachable(
            f"no Ray answers at {address} ({_first_line(error)}). Set --address or {ADDRESS_ENV} to "
            "the dashboard's URL; where Ray asks for a token, RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        ) from None


def follow(client: Any, submission_id: str, quiet: bool = False, deadline_s: float | None = None) -> int:
    """Show what a job prints until it ends; its exit code. Why it has not begun, or did not, goes to stderr.

    Raises:
        DeadlineError: it goes on longer than `deadline_s`.
        RunUnreachable: Ray has not answered for `LOST_S`.
    """
    shown, said = 0, ""
    begun = heard = time.monotonic()
    while True:
        try:
            info, logs = client.get_job_info(submission_id), client.get_job_logs(submission_id)
        except (RuntimeError, OSError) as error:
            if time.monotonic() - heard > LOST_S:
                why = f"Ray has not answered for {LOST_S:g} s: {_first_line(error)}"
                raise RunUnreachable(f"{why}. Where Ray lives, {submission_id} goes on") from None
            time.sleep(POLL_S)
            continue
        heard, status = time.monotonic(), str(info.status.value)
        if not quiet:
            print(printable(logs[shown:]), end="", flush=True)
        shown = len(logs)
        code = info.driver_exit_code
        if not shown and status in ("PENDING", "FAILED") and info.message != said:
            said = info.message
            print(printable(f"{status}: {said}"), file=sys.stderr, flush=True)
        if status == "FAILED" and (why := _why_failed(logs)):
            print(f"{submission_id} failed{why}", file=sys.stderr)
        if status in ENDED:
            return code if status == "FAILED" and code is not None and code > 0 else EXITS[status]
        if deadline_s is not None and heard - begun > deadline_s:
            raise DeadlineError(f"{submission_id} is still {status} after {deadline_s:g} s")
        time.sleep(POLL_S)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _without_secrets(runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """As one would type it: passed variables by name, their values by the shell."""
    variables = {
        name: value if name.startswith("RAY_JOB_") else f"${name}"
        for name, value in runtime_env.get("env_vars", {}).items()
    }
    return {**runtime_env, "env_vars": variables}
