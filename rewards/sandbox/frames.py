"""Messages between a sandbox's client and its supervisor: a JSON header, then raw blobs; and what a box reads.

u32 header length | header: {..., "blobs": [lengths]} | blob | blob | ...
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

_LENGTH = struct.Struct("!I")


def pack(header: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """One message as bytes."""
    text = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}).encode()
    return b"".join((_LENGTH.pack(len(text)), text, *blobs))


def job_frame(job: Mapping[str, Any]) -> bytes:
    """A job, or its rlimits, as the bytes that a Python box reads."""
    body = json.dumps(job).encode()
    return _LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader) -> tuple[dict[str, Any], list[bytes]]:
    """The next message; IncompleteReadError when the other end is gone."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    header: dict[str, Any] = json.loads(await reader.readexactly(length))
    return header, [await reader.readexactly(size) if size else b"" for size in header["blobs"]]
