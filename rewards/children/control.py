"""The channel between the pool and its fork server: JSON messages, the pool's with a child's socket where one is asked.

On Linux a message is a datagram of a connection. Other systems have no such pairs: there it is a line of a stream, of
which several may come at once, or one in parts.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_STREAM


def control_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends."""
    return socket.socketpair(socket.AF_UNIX, KIND)


def packed(message: dict[str, Any]) -> bytes:
    """A message as it is sent."""
    return json.dumps(message).encode() + b"\n"


class ControlReader:
    """One end's messages, whole ones alone."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rest = b""

    def read(self) -> tuple[list[dict[str, Any]], list[int]] | None:
        """What has come, in order, and the sockets sent along; None when the other end is closed.

        Raises BlockingIOError where nothing has, at an end that does not block.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(self._end, 4096, 8)
        except ConnectionError:  # the other end died with messages of ours unread
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines], list(descriptors)
