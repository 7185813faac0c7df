"""Messages between the pool and its fork server, whole whatever the kind of pair."""

from __future__ import annotations

import os
import socket

import pytest

from rayzero.rewards.children.control import ControlReader, control_pair, packed


def test_a_message_is_a_datagram_with_the_sockets_sent_along() -> None:
    ours, theirs = control_pair()
    sent, other = socket.socketpair()
    with ours, theirs, sent, other:
        socket.send_fds(ours, [packed({"op": "fork"})], [sent.fileno()])
        ours.send(packed({"op": "kill", "pid": 3}))
        reader = ControlReader(theirs)
        received = reader.read()
        assert received is not None and received[0] == [{"op": "fork"}] and len(received[1]) == 1
        os.close(received[1][0])
        assert reader.read() == ([{"op": "kill", "pid": 3}], [])
        ours.close()
        assert reader.read() is None


def test_lines_of_a_stream_may_come_in_parts_and_together() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = ControlReader(theirs)
        whole = packed({"exit": 1}) + packed({"exit": 2})
        ours.send(whole[:5])
        assert reader.read() == ([], [])
        ours.send(whole[5:])
        assert reader.read() == ([{"exit": 1}, {"exit": 2}], [])
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            reader.read()
