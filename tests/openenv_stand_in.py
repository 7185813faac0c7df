"""A server that speaks OpenEnv's wire as far as rayzero does: a game of adding up, in whole turns or with a tool, that
can hang, fail and end. `python tests/openenv_stand_in.py --port PORT [--sessions N] [--tools]`"""

from __future__ import annotations

import argparse
import json
import os
import time
from http import HTTPStatus
from typing import Any

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

OPEN: set[int] = set()
NUMBER = {"properties": {"number": {"type": "integer"}, "metadata": {"type": "object"}}, "required": ["number"]}
TOOL = {"properties": {"tool_name": {"type": "string"}, "arguments": {"type": "object"}}, "required": ["tool_name"]}


class Game:
    """One session: the sum of what it is given; worth a tenth of each number; over at 10."""

    def __init__(self) -> None:
        self.total = 0

    def reset(self, data: dict[str, Any]) -> dict[str, Any]:
        """Begin at what the seed, or the row, says."""
        self.total = int(data.get("start", data["seed"] % 3))
        return self._seen(0.0)

    def step(self, data: dict[str, Any]) -> dict[str, Any]:
        """Add a number, or do harm."""
        if data.get("type") == "list_tools":
            schema = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
            tools = [{"name": "add", "description": "Add a number.", "input_schema": schema}]
            return {"observation": {"tools": tools, "metadata": {}}, "reward": None, "done": False}
        if data.get("type") == "call_tool":
            data = data["arguments"]
        number = data["number"]
        if number == 98:
            os._exit(4)
        if number == 99:
            time.sleep(3600)
        if not isinstance(number, int) or number < 0:
            raise ValueError("only upwards")
        self.total += number
        return self._seen(number / 10)

    def _seen(self, reward: float) -> dict[str, Any]:
        said = {"said": f"the sum is {self.total}", "metadata": {}}
        return {"observation": said, "reward": reward, "done": self.total >= 10}


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--tools", action="store_true")
    given = parser.parse_args()

    def say(connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/ws":
            return None
        body = json.dumps({"action": TOOL if given.tools else NUMBER}).encode()
        return Response(HTTPStatus.OK.value, "OK", Headers({"Content-Length": str(len(body))}), body)

    def play(connection: ServerConnection) -> None:
        if len(OPEN) >= given.sessions:
            connection.recv()
            connection.send(json.dumps({"type": "error", "data": {"message": "full", "code": "CAPACITY_REACHED"}}))
            return
        OPEN.add(id(connection))
        game = Game()
        try:
            for text in connection:
                message = json.loads(text)
                try:
                    answer = {"type": "observation", "data": getattr(game, message["type"])(message["data"])}
                except Exception as error:
                    answer = {"type": "error", "data": {"message": str(error), "code": "EXECUTION_ERROR"}}
                connection.send(json.dumps(answer))
        finally:
            OPEN.discard(id(connection))

    with serve(play, "127.0.0.1", given.port, process_request=say) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
