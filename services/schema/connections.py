"""HTTP connections within bounds: how many there may be, and how long one may take to ask or to take its answer.

A client that opens connections and sends nothing would take the process's file descriptors, and with the last of them
the run would end.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol


class BoundedConnection(H11Protocol):
    """One client. Beyond the bounds the one that has waited longest without a request makes room."""

    max_connections = 256
    max_of_one_peer = 64
    """From one address."""
    request_s = 10.0
    """Until a request's head is there whole."""
    reading_s = 30.0
    """Without any progress, for a client that takes its answer."""
    _asking: asyncio.TimerHandle | None = None
    """Runs while no request is being answered."""
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room, or turn it away."""
        super().connection_made(transport)
        self._await_request()
        others = [other for other in cast("set[BoundedConnection]", self.connections) if other is not self]
        of_this_peer = [other for other in others if (other.client or ("",))[0] == (self.client or ("",))[0]]
        for crowd, bound in ((of_this_peer, self.max_of_one_peer), (others, self.max_connections)):
            if len(crowd) >= bound:
                waiting = [other for other in crowd if other._asking is not None]
                (min(waiting, key=lambda other: other.claim()) if waiting else self)._cut()

    def claim(self) -> Any:
        """To its place, of one that waits: the lowest goes first, which is the one that has waited longest."""
        assert self._asking is not None
        return self._asking.when()

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
        self._reading = self.loop.call_later(self.reading_s, self._cut)

    def resume_writing(self) -> None:
        """It has."""
        _cancel(self._reading)
        super().resume_writing()

    def _await_request(self) -> None:
        _cancel(self._asking)
        self._asking = self.loop.call_later(self.request_s, self._cut)

    def _cut(self) -> None:
        # At once, not when the event loop gets round to it: its place is needed now.
        self.connections.discard(self)
        _cancel(self._asking, self._reading)
        self.transport.abort()


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()
