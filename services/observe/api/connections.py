"""Connections to the API: how many there may be, how long one may take to ask, and whose they are.

The API lives in the driver. A client that opens connections and sends nothing would take the driver's file descriptors,
and with the last of them the run would end.
"""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from rayzero.services.observe.api.peers import STRANGER, is_own

MAX_CONNECTIONS = 256
MAX_OF_ONE_PEER = 64
"""From one address."""
REQUEST_S = 10.0
"""Until a request's head is there whole."""
READING_S = 30.0
"""Without any progress, for a client that takes its answer."""


class Connection(H11Protocol):
    """One client. Beyond the bounds the one that has waited longest without a request makes room."""

    _asking: asyncio.TimerHandle | None = None
    """Runs while no request is being answered."""
    _reading: asyncio.TimerHandle | None = None
    owner_only = False
    """Whether processes of other users are strangers."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room, or turn it away."""
        super().connection_made(transport)
        self._await_request()
        own, peer = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if self.owner_only and not (own and peer and is_own(peer[:2], own[:2])):
            self.app_state = {**self.app_state, STRANGER: True}
        others = [other for other in cast("set[Connection]", self.connections) if other is not self]
        of_this_peer = [other for other in others if (other.client or ("",))[0] == (self.client or ("",))[0]]
        for crowd, bound in ((of_this_peer, MAX_OF_ONE_PEER), (others, MAX_CONNECTIONS)):
            if len(crowd) >= bound:
                waiting = [other for other in crowd if other._asking is not None]
                (min(waiting, key=_claim) if waiting else self)._cut()

    def handle_events(self) -> None:
        """A request that is there stops the clock."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            _cancel(self._asking)
            self._asking = None

    def on_response_complete(self) -> None:
        """The next request may be waited for as long as the first."""
        self._await_request()  # before a request that has come already is begun
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        _cancel(self._asking, self._reading)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client has not taken what it was sent."""
        super().pause_writing()
        self._reading = self.loop.call_later(READING_S, self._cut)

    def resume_writing(self) -> None:
        """It has."""
        _cancel(self._reading)
        super().resume_writing()

    def _await_request(self) -> None:
        _cancel(self._asking)
        self._asking = self.loop.call_later(REQUEST_S, self._cut)

    def _cut(self) -> None:
        # At once, not when the event loop gets round to it: its place is needed now.
        self.connections.discard(self)
        _cancel(self._asking, self._reading)
        self.transport.abort()


class OwnConnection(Connection):
    """Where there is no token: this user's processes alone are no strangers."""

    owner_only = True


def _claim(connection: Connection) -> tuple[bool, float]:
    """To its place, of one that waits: other users' go first, then those that have waited longest."""
    assert connection._asking is not None
    return STRANGER not in connection.app_state, connection._asking.when()


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()
