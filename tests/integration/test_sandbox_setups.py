"""The sandbox on other set-ups than this process's own: a plain user beside a busy Ray, a masked /proc, no process
left, a toolchain in a home."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from rayzero.rewards.code.judge import CodeJudge
from rayzero.rewards.code.languages import javascript
from rayzero.rewards.sandbox import doctor
from rayzero.rewards.sandbox.inside.confine import landlock_abi
from rayzero.rewards.sandbox.refusal import fixes
from rayzero.services.schema.config.sandbox import SandboxSettings
from rayzero.services.schema.messages import VerdictStatus
from tests.plain_user import PYTHON, ask
from tests.system import AS_ROOT, needs

pytestmark = [
    needs("bwrap"),
    pytest.mark.skipif(landlock_abi() < 6, reason="Landlock ABI 6 (Linux 6.12) is needed"),
    pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no interpreter that a plain user can reach"),
]


def broken(report: Any) -> list[str]:
    """Promises that do not hold, and those that were not tried."""
    found = []
    for backend in report["backends"]:
        if backend["works"]:
            tried = {finding["promise"] for finding in backend["findings"]}
            found += [f"{backend['backend']}: {promise} was not tried" for promise in doctor.PROMISES.keys() - tried]
            found += [f"{backend['backend']}: {each}" for each in backend["findings"] if not each["holds"]]
    return found


def test_as_a_plain_user_beside_a_busy_ray_every_promise_holds() -> None:
    report = ask("doctor")
    assert report["machine"]["user"].startswith("uid ")
    assert [backend["works"] for backend in report["backends"]] == [True, True]
    assert report["chosen"] == "bwrap" and report["is_sound"]
    assert not broken(report)


@AS_ROOT
def test_where_proc_is_masked_the_reason_and_the_fix_are_told() -> None:
    report = ask("doctor", masked=True)
    bwrap, landlock = report["backends"]
    assert not bwrap["works"] and "mount proc" in bwrap["reason"]
    assert "systempaths=unconfined" in " ".join(fixes({"bwrap": bwrap["reason"]}))
    assert landlock["works"] and report["chosen"] == "landlock" and report["is_sound"]
    assert not broken(report)


@pytest.mark.long
@needs("g++")
def test_a_compiler_that_cannot_fork_is_the_machines_fault() -> None:
    verdict = ask("full")
    assert verdict["status"] == "error", verdict
    assert "no more processes" in verdict["reason"]


@needs("node")
@pytest.mark.parametrize("backend", ["bwrap", "landlock"])
async def test_a_toolchain_in_a_home_shows_nothing_of_the_home(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    shutil.copy(os.path.realpath(shutil.which("node") or ""), home / "bin" / "node")
    secret = home / "secret"
    secret.write_text("3")
    for folder in (home, *home.parents):
        if folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(javascript, "node", javascript.node.__wrapped__)
    spec = {"language": "javascript", "tests": [{"stdin": "", "expected": "3"}]}
    judge = CodeJudge(SandboxSettings(backend=backend))
    try:
        honest = await judge.run("console.log(3)", spec, is_program=True)
        read = f"console.log(require('fs').readFileSync({str(secret)!r}, 'utf8'))"
        listed = f"if (require('fs').readdirSync({str(home)!r}).includes('secret')) console.log(3)"
        hostile = [await judge.run(source, spec, is_program=True) for source in (read, listed)]
    finally:
        await judge.close()
    assert honest.status is VerdictStatus.CORRECT, honest.reason
    assert [verdict.status for verdict in hostile] == [VerdictStatus.WRONG] * 2
