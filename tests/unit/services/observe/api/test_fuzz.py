"""Schemathesis over the API's own OpenAPI: no request, however odd, fails in our hands or changes anything."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from rayzero.services.observe.api.app import build_app
from rayzero.services.observe.api.guard import Guard
from tests.unit.services.observe.api.kit import Watched

SECRET = "s3cret-token"
GIVEN = {"Authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_request_is_answered_or_refused(tmp_path: Path, mode: GenerationMode) -> None:
    async def make() -> Watched:
        return Watched(tmp_path)

    view = asyncio.run(make()).view
    app = Guard(build_app(view, "127.0.0.1:1"), SECRET)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=GIVEN)
    asked = set()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        asked.add(f"{operation.method.upper()} {operation.path}")

        @given(operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=8,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: schemathesis.Case[Any]) -> None:
            answer = case.call(headers=GIVEN)
            assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text}"
            stranger = case.call(headers={"Authorization": "Bearer wrong"})
            assert stranger.status_code == 401 or case.path == "/healthz"

        with suppress(Unsatisfiable):  # nothing can be wrong with a request that has no parameters
            ask()
    assert {"POST /v1/scale", "POST /v1/drain", "GET /v1/groups", "GET /v1/compare"} <= asked
    assert view.events.latest(100) == []
