"""A scripted HTTP server for reward servers and judges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

Answer = tuple[int, Any] | None


@asynccontextmanager
async def serving(answer: Callable[[dict[str, Any], dict[str, str]], Answer]) -> AsyncIterator[str]:
    """Serves `answer(payload, headers)` → (status, body) on loopback; None hangs up. Yields the URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in request[1:] if line)}
            payload = json.loads(await reader.readexactly(int(headers["content-length"])))
            result = answer(payload, headers)
            if result is not None:
                body = result[1] if isinstance(result[1], bytes) else json.dumps(result[1]).encode()
                head = [f"HTTP/1.1 {result[0]} X", f"Content-Length: {len(body)}", "Connection: close", "", ""]
                writer.write("\r\n".join(head).encode() + body)
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
