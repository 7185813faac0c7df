"""A program's stdin: a file with a size that no box can change."""

from __future__ import annotations

import mmap
import os

import pytest

from rayzero.rewards.sandbox.stdin_file import StdinFile


def test_it_has_a_size_and_a_position_of_its_own() -> None:
    made = StdinFile()
    theirs = made.hand_over()
    made.fill(b"1 2\n" * 50_000)
    assert os.fstat(theirs).st_size == 200_000
    assert os.read(theirs, 4) == b"1 2\n"
    with mmap.mmap(theirs, 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:4] == b"1 2\n"
    os.close(theirs)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR])
def test_nothing_can_be_written_once_it_is_filled(flags: int) -> None:
    made = StdinFile()
    theirs = made.hand_over()
    made.fill(b"4\n")
    with pytest.raises(OSError):
        os.write(theirs, b"9")
    try:
        again = os.open(f"/proc/self/fd/{theirs}", flags)  # root may open anything: the seal holds all the same
    except PermissionError:
        again = -1
    if again >= 0:
        with pytest.raises(PermissionError):
            os.pwrite(again, b"9", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(again, 0)
        os.close(again)
    os.close(theirs)


def test_closing_gives_everything_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    made = StdinFile()
    made.close()
    made.fill(b"too late")
    assert len(os.listdir("/proc/self/fd")) == before
