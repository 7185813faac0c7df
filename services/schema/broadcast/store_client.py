"""The store of a transfer, as the other processes see it: each of its calls is one question to the server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

from rayzero.services.schema.broadcast.store import MAX_FRAME_BYTES, greet_server, hang_up


class StoreClient:
    """The store of another process."""

    def __init__(self, host: str, port: int, secret: str, timeout_s: float) -> None:
        """Connect, for at most `timeout_s`; so long each wait may take, too.

        Raises:
            OSError: no store is there, or another transfer's.
        """
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        caller = socket.create_connection((host, port), timeout_s)
        caller.settimeout(None)
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = Connection(caller.detach())
        try:
            greet_server(self._connection, secret)
        except EOFError:
            raise ConnectionResetError("the store has hung up") from None

    def set(self, key: str, value: str | bytes) -> None:
        """See `Store`."""
        self._ask("set", key, (value.encode() if isinstance(value, str) else bytes(value)).hex())

    def get(self, key: str) -> bytes:
        """See `Store`."""
        self.wait([key])
        return bytes.fromhex(self._ask("get", key))

    def check(self, keys: Sequence[str]) -> bool:
        """See `Store`."""
        return bool(self._ask("check", list(keys)))

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """See `Store`."""
        self._ask("wait", list(keys), self._timeout_s if timeout is None else timeout.total_seconds())

    def add(self, key: str, amount: int) -> int:
        """See `Store`."""
        return int(self._ask("add", key, amount))

    def delete_key(self, key: str) -> bool:
        """See `Store`."""
        return bool(self._ask("delete", key))

    def close(self) -> None:
        """Hang up."""
        hang_up(self._connection)

    def _ask(self, *request: Any) -> Any:
        with self._lock:
            try:
                self._connection.send_bytes(json.dumps(request).encode())
                answer = json.loads(self._connection.recv_bytes(MAX_FRAME_BYTES))
            except EOFError:
                raise ConnectionResetError("the store has hung up") from None
        if "error" in answer:
            raise TimeoutError(answer["error"])
        return answer["value"]
