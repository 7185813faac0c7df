"""A child as the pool sees it: whether it sleeps, and how much of its time it has used."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import pytest

from rayzero.rewards.children.child import UNKNOWN, Child, usage_of


async def a_child(pid: int) -> Child:
    ours, theirs = socket.socketpair()
    theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours)
    child = Child(reader, writer)
    child.pid = pid
    return child


def test_a_process_that_computes_is_running_and_one_that_is_gone_is_none() -> None:
    state, seconds = usage_of(os.getpid())
    assert state == "R" and seconds > 0
    assert usage_of(2**22 + 1) == ("X", 0.0)


async def test_time_counts_as_used_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    child = await a_child(os.getpid())
    child.begin(10.0)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert usage_of(os.getpid()) == (UNKNOWN, 0.0)
    assert not child.looks_asleep(13.0)
    assert child.used_s == 3.0 and child.look_at == pytest.approx(13.1)
    child.hang_up()


async def test_a_child_that_uses_no_cpu_is_asleep_at_the_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    child = await a_child(1)
    child.begin(0.0)
    monkeypatch.setattr("rayzero.rewards.children.child.usage_of", lambda pid: ("S", 5.0))
    assert child.looks_asleep(1.0) and child.used_s == 0.0
    monkeypatch.setattr("rayzero.rewards.children.child.usage_of", lambda pid: ("R", 6.5))
    assert not child.looks_asleep(2.0) and child.used_s == 1.5
    child.hang_up()
