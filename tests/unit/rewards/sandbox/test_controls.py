from __future__ import annotations

import pytest

from rayzero.rewards.sandbox.controls import complains, control, is_fine
from rayzero.rewards.sandbox.limits import Limits, Outcome


@pytest.mark.parametrize(
    "text",
    [
        "/bin/sh: 1: Cannot fork",
        "g++: fatal error: cannot execute 'cc1plus': vfork: Resource temporarily unavailable",
        "/usr/bin/ld: final link failed: No space left on device",
        "java.lang.OutOfMemoryError: unable to create native thread: possibly out of memory",
        "thread 'main' panicked: failed to spawn thread: Os { code: 11, message: Resource temporarily unavailable",
    ],
)
def test_complaints_of_compilers_and_runtimes_are_known(text: str) -> None:
    assert complains(Outcome(ended="exited", code=1, stderr=text.encode()))
    assert not complains(Outcome(ended="exited", code=0, stderr=text.encode()))
    assert not complains(Outcome(ended="cpu", code=-9, stderr=text.encode()))


def test_what_python_programs_raise_is_known() -> None:
    for text in ("RuntimeError: can't start new thread", "OSError: [Errno 28] No space left on device"):
        assert complains(Outcome(ended="exited", code=1, result=text.encode()))
    assert not complains(Outcome(ended="exited", code=1, result=b"ValueError: 28"))


def test_the_control_needs_most_of_what_is_granted() -> None:
    argv, limits = control(Limits(num_processes=64))
    assert "-lt 48" in argv[-1] and "{tmp}/control" in argv[-1]
    assert limits.num_processes == 64


def test_only_a_control_that_came_through_clears_the_machine() -> None:
    assert is_fine(Outcome(ended="exited", stdout=b"fine\n"))
    assert is_fine(Outcome(ended="starved"))
    assert not is_fine(Outcome(ended="exited", code=2, stderr=b"Cannot fork"))
    assert not is_fine(Outcome(ended="wall"))
