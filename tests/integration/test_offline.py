"""A run with no network but loopback: it ends as any other, and has tried to reach nothing."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from rayzero.services.store.json_lines import read_lines
from tests.integration.test_loop import TIMINGS, command, marked
from tests.system import AS_ROOT, needs

pytestmark = [
    needs("unshare", "ip"),
    pytest.mark.long,
    pytest.mark.timeout(1800),
    AS_ROOT,
]

CHANGES = ["training.num_updates=3", "evaluation.every_updates=0", "cold_start.num_updates=20"]
COMPLAINTS = re.compile(
    r"network is unreachable|name resolution|name or service not known|max retries exceeded|connection ?error|"
    r"huggingface\.co|usage-stats\.|stats\.vllm|telemetry",
    re.I,
)


def environment(run_dir: Path) -> dict[str, str]:
    """A user's: nothing is switched off but by rayzero itself."""
    ours = ("RAY_", "VLLM_", "HF_", "DO_NOT_TRACK", "TRANSFORMERS_")
    return {name: value for name, value in marked(run_dir).items() if not name.startswith(ours)}


def test_with_loopback_alone_a_run_is_the_same_bit_for_bit_and_calls_no_one(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    train = shlex.join(command(inside, *CHANGES))
    # The kernel counts what had no route: a look-up, a connection, a datagram to anywhere.
    script = f"ip link set lo up && {train}; code=$?; "
    script += f"cat /proc/net/snmp /proc/net/snmp6 > {shlex.quote(str(tmp_path / 'counters'))}; exit $code"
    for run_dir, how in ((inside, ["unshare", "--net", "sh", "-c", script]), (outside, command(outside, *CHANGES))):
        done = subprocess.run(how, capture_output=True, text=True, timeout=850, check=False, env=environment(run_dir))
        assert done.returncode == 0, done.stdout + done.stderr
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        one, other = (
            [{key: value for key, value in row.items() if not key.endswith(TIMINGS)} for row in read_lines(run / name)]
            for run in (inside, outside)
        )
        assert one == other
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (inside, outside)]
    assert weights[0] == weights[1]
    assert unrouted((tmp_path / "counters").read_text()) == {"Ip": 0, "Ip6": 0}
    for log in (inside / "logs").iterdir():
        assert not COMPLAINTS.findall(log.read_text(errors="replace")), log


def unrouted(counters: str) -> dict[str, int]:
    """What had no route, of each family."""
    names, values = (line.split() for line in counters.splitlines() if line.startswith("Ip:"))
    (six,) = (int(line.split()[1]) for line in counters.splitlines() if line.startswith("Ip6OutNoRoutes"))
    return {"Ip": int(dict(zip(names, values, strict=True))["OutNoRoutes"]), "Ip6": six}


def test_the_counters_see_an_attempt(tmp_path: Path) -> None:
    """Or the test above would prove nothing."""
    attempt = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ntry: s.connect(('192.0.2.1', 53))\n"
    attempt += "except OSError: pass"
    script = f"ip link set lo up; python3 -c {shlex.quote(attempt)}; cat /proc/net/snmp /proc/net/snmp6"
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=True)
    assert unrouted(done.stdout)["Ip"] >= 1
