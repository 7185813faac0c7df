"""Where the ranks of a transfer meet: a store of named values on one port, for those alone who know its secret.

torch's TCPStore listens on every interface, gives what it holds to all callers and takes what they set: a stranger
could send an engine elsewhere, or map the learner's buffer. Here both ends first prove that they know the secret, which
came over Ray. Then requests and answers go over the connection as frames of JSON, values in hexadecimal.

    server: a number          caller: a number of its own, HMAC of both          server: another HMAC of both
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, Protocol

GREETING_S = 10.0
"""Until both ends have proved that they know the secret."""
NONCE_BYTES = 32
MAX_FRAME_BYTES = 2**20


class Store(Protocol):
    """What links need of the place where they meet; torch's stores are such."""

    def set(self, key: str, value: str | bytes) -> None:
        """Write a value."""
        ...

    def get(self, key: str) -> bytes:
        """The value, waited for.

        Raises:
            TimeoutError: it was not set in time.
        """
        ...

    def check(self, keys: Sequence[str]) -> bool:
        """Whether all of them are set."""
        ...

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Until all of them are set.

        Raises:
            TimeoutError: they were not in time.
        """
        ...

    def add(self, key: str, amount: int) -> int:
        """Count up; the new count."""
        ...

    def delete_key(self, key: str) -> bool:
        """Forget a value; whether there was one."""
        ...


def greet_caller(connection: Connection, secret: str) -> None:
    """The server's half of the greeting.

    Raises:
        PermissionError: the caller does not know the secret.
    """
    with _in_time(connection):
        ours = secrets.token_bytes(NONCE_BYTES)
        connection.send_bytes(ours)
        answer = connection.recv_bytes(4 * NONCE_BYTES)
        theirs, proof = answer[:NONCE_BYTES], answer[NONCE_BYTES:]
        if not hmac.compare_digest(proof, _proof(secret, b"caller", ours, theirs)):
            raise PermissionError("the caller does not know this transfer's secret")
        connection.send_bytes(_proof(secret, b"server", ours, theirs))


def greet_server(connection: Connection, secret: str) -> None:
    """The caller's half of the greeting.

    Raises:
        PermissionError: the server does not know the secret, or has not believed that this process does.
    """
    with _in_time(connection):
        theirs, ours = connection.recv_bytes(NONCE_BYTES), secrets.token_bytes(NONCE_BYTES)
        connection.send_bytes(ours + _proof(secret, b"caller", theirs, ours))
        try:
            proof = connection.recv_bytes(NONCE_BYTES)
        except (EOFError, ConnectionError):
            proof = b""
        if not hmac.compare_digest(proof, _proof(secret, b"server", theirs, ours)):
            raise PermissionError("the store there is another transfer's")


def _proof(secret: str, who: bytes, of_server: bytes, of_caller: bytes) -> bytes:
    return hmac.digest(secret.encode(), who + of_server + of_caller, "sha256")


def as_torch_store(store: Store, base: Any) -> Any:
    """The same as a store that gloo takes. `base`: torch.distributed.Store, which this module does not import."""

    class TorchStore(base):  # type: ignore[misc]
        """Torch keeps no reference to the Python object: hold this as long as the group."""

        def set(self, key: str, value: Any) -> None:
            store.set(key, value)

        def get(self, key: str) -> bytes:
            return store.get(key)

        def check(self, keys: Sequence[str]) -> bool:
            return store.check(keys)

        def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
            store.wait(keys, timeout)

        def add(self, key: str, amount: int) -> int:
            return store.add(key, amount)

        def delete_key(self, key: str) -> bool:
            return store.delete_key(key)

    return TorchStore()


@contextlib.contextmanager
def _in_time(connection: Connection) -> Iterator[None]:
    """Hang up when the block takes longer: a peer that says nothing would be read from for ever."""
    timer = threading.Timer(GREETING_S, hang_up, (connection,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def hang_up(connection: Connection) -> None:
    """Ends reads in other threads, too."""
    with contextlib.suppress(OSError):
        peer = socket.socket(fileno=connection.fileno())
        try:
            peer.shutdown(socket.SHUT_RDWR)
        finally:
            peer.detach()
