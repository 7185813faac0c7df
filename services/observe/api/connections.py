"""Connections to the API: the bounds of all of rayzero's, and whose they are."""

from __future__ import annotations

import asyncio
from typing import Any

from rayzero.services.observe.api.peers import STRANGER, is_own
from rayzero.services.schema.connections import BoundedConnection


class Connection(BoundedConnection):
    """One client. Other users' make room first."""

    owner_only = False
    """Whether processes of other users are strangers."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Mark a stranger's."""
        own, peer = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if self.owner_only and not (own and peer and is_own(peer[:2], own[:2])):
            self.app_state = {**self.app_state, STRANGER: True}
        super().connection_made(transport)

    def claim(self) -> Any:
        """Other users' go first, then those that have waited longest."""
        return STRANGER not in self.app_state, super().claim()


class OwnConnection(Connection):
    """Where there is no token: this user's processes alone are no strangers."""

    owner_only = True
