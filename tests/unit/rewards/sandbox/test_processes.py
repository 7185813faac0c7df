import os
import subprocess
import time

from rayzero.rewards.sandbox.processes import Process, cpu_seconds, is_asleep, proportional_bytes, scan, tree


def process(pid: int, parent: int, group: int = 0) -> Process:
    return Process(pid, parent, group, 0.0, 0)


def test_a_tree_holds_descendants_and_the_group() -> None:
    processes = [
        process(1, 0),
        process(10, 1),
        process(11, 10),
        process(12, 11),
        process(20, 1),
        process(30, 1, 10),
        process(31, 30),
    ]
    assert {member.pid for member in tree(processes, 10)} == {10, 11, 12, 30, 31}
    assert tree(processes, 99) == []


def test_this_process_is_seen_as_it_is() -> None:
    me = next(found for found in scan() if found.pid == os.getpid())
    assert me.parent == os.getppid()
    assert me.resident_bytes > 1 << 20
    assert 0 < cpu_seconds(os.getpid()) <= time.process_time() + 0.1
    assert 0 < proportional_bytes([me]) <= 2 * me.resident_bytes


def test_a_sleeper_is_asleep_and_the_gone_cost_nothing() -> None:
    child = subprocess.Popen(["sleep", "30"])
    try:
        deadline = time.monotonic() + 10
        while not is_asleep(child.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert is_asleep(child.pid)
    finally:
        child.kill()
        child.wait()
    assert cpu_seconds(child.pid) == 0.0
    assert not is_asleep(child.pid)
