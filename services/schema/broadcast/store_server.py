"""The store of a transfer, in the process that serves it: the learner's."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

from rayzero.services.schema.addresses import family_of
from rayzero.services.schema.broadcast.store import MAX_FRAME_BYTES, greet_caller, hang_up

MAX_GREETING = 256
"""Callers that have not yet proved anything; more are hung up on."""


class StoreServer:
    """Holds the values, and is a store itself for the process that serves it."""

    def __init__(self, host: str, timeout_s: float) -> None:
        """Listen on a free port of `host`, and of no other address. `timeout_s` bounds this process's own waits."""
        self.secret = secrets.token_hex(32)
        self._timeout_s = timeout_s
        self._values: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._connections: set[Connection] = set()
        self._greeting = threading.BoundedSemaphore(MAX_GREETING)
        self._closed = False
        self._listener = socket.create_server((host, 0), family=family_of(host), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="transfer-store", daemon=True).start()

    def set(self, key: str, value: str | bytes) -> None:
        """See `Store`."""
        with self._changed:
            self._values[key] = value.encode() if isinstance(value, str) else bytes(value)
            self._changed.notify_all()

    def get(self, key: str) -> bytes:
        """See `Store`."""
        self.wait([key])
        return self._values[key]

    def check(self, keys: Sequence[str]) -> bool:
        """See `Store`."""
        return all(key in self._values for key in keys)

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """See `Store`."""
        timeout_s = self._timeout_s if timeout is None else timeout.total_seconds()
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self.check(keys), timeout_s) or self._closed:
                raise TimeoutError(f"{', '.join(keys)} not set within {timeout_s:g} s")

    def add(self, key: str, amount: int) -> int:
        """See `Store`."""
        with self._changed:
            count = int(self._values.get(key, b"0")) + amount
            self.set(key, str(count))
            return count

    def delete_key(self, key: str) -> bool:
        """See `Store`."""
        with self._changed:
            return self._values.pop(key, None) is not None

    def close(self) -> None:
        """Hang up: what waits gets an error."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        for connection in list(self._connections):
            hang_up(connection)

    def _accept(self) -> None:
        while not self._closed:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                time.sleep(0.01)  # closed; or out of file descriptors, for a while
                continue
            if not self._greeting.acquire(blocking=False):
                caller.close()
                continue
            threading.Thread(target=self._serve, args=(caller,), name="transfer-store-caller", daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(caller.detach())
        self._connections.add(connection)
        try:
            try:
                greet_caller(connection, self.secret)
            finally:
                self._greeting.release()
            while True:
                verb, *arguments = json.loads(connection.recv_bytes(MAX_FRAME_BYTES))
                connection.send_bytes(json.dumps(self._answer(verb, arguments)).encode())
        except (OSError, EOFError, ValueError, TypeError, KeyError):
            pass  # it has hung up, or is no rank of this transfer
        finally:
            self._connections.discard(connection)
            with contextlib.suppress(OSError):
                connection.close()

    def _answer(self, verb: str, arguments: list[Any]) -> dict[str, Any]:
        try:
            return {"value": VERBS[verb](self, *arguments)}
        except TimeoutError as error:
            return {"error": str(error)}


VERBS: dict[str, Callable[..., Any]] = {
    "set": lambda store, key, value: store.set(key, bytes.fromhex(value)),
    "get": lambda store, key: store.get(key).hex(),
    "check": StoreServer.check,
    "wait": lambda store, keys, timeout_s: store.wait(keys, timedelta(seconds=timeout_s)),
    "add": StoreServer.add,
    "delete": StoreServer.delete_key,
}
