"""Every port and socket that the processes of a run listen on, from the kernel's tables."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LISTENING = "0A"


@dataclass(frozen=True, kw_only=True, slots=True)
class Listener:
    """One TCP socket."""

    host: str
    port: int
    process: str
    """What the process calls itself."""


def listeners(marker: str) -> list[Listener]:
    """Of every process that has `marker` in its environment."""
    owners = {inode: name for pid, name in marked(marker) for inode in _inodes(pid)}
    return [Listener(host=host, port=port, process=owners[inode]) for host, port, inode in _table() if inode in owners]


def unix_sockets(marker: str) -> list[str]:
    """Names of the Unix sockets that the processes have; those in no file begin with @."""
    owned = {inode for pid, _ in marked(marker) for inode in _inodes(pid)}
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return [fields[7] for fields in map(str.split, lines) if len(fields) > 7 and int(fields[6]) in owned]


def marked(marker: str) -> Iterator[tuple[int, str]]:
    """Processes, by id, with what they call themselves."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker.encode() in (entry / "environ").read_bytes():
                    yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80]
            except OSError:
                continue


def _inodes(pid: int) -> Iterator[int]:
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                yield int(target[8:-1])
    except OSError:
        return


def _table() -> Iterator[tuple[str, int, int]]:
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING:
                host, _, port = fields[1].partition(":")
                words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
                address = ipaddress.ip_address(b"".join(words))
                mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
                yield str(mapped or address), int(port, 16), int(fields[9])
