"""Who is let in: a token, loopback without one, small JSON bodies, no other site's pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rayzero.services.observe.api.guard import MAX_BODY_BYTES, check_api
from rayzero.services.schema.config.observe import ApiSettings
from rayzero.services.schema.errors import RecipeError
from tests.unit.services.observe.api.kit import Watched

SECRET = "s3cret-token-of-the-run"
PATHS = ["/v1/status", "/v1/groups", "/v1/recipe", "/v1/events", "/metrics", "/sd", "/openapi.json", "/v1/nothing"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("given", [None, "wrong", SECRET[:-1], SECRET + "x"])
async def test_nothing_is_said_without_the_token(tmp_path: Path, path: str, given: str | None) -> None:
    async with Watched(tmp_path).client(SECRET, given) as client:
        answer = await client.get(path)
    assert answer.status_code == 401 and SECRET not in answer.text


async def test_no_change_is_made_without_the_token(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.start()
    async with watched.client(SECRET) as client:
        for change in ("scale", "pause", "stop", "checkpoint"):
            assert (await client.post(f"/v1/{change}", json={"rollout": 3})).status_code == 401
    assert not watched.run.controller.stopping and watched.run.engines.target == 1
    assert [event["event"] for event in watched.view.events.latest(10)] == ["ready"]


async def test_with_the_token_everything_is_there_and_it_is_written_nowhere(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.go()
    async with watched.client(SECRET, SECRET) as client:
        answers = [await client.get(path) for path in PATHS[:-1]]
        await client.post("/v1/checkpoint", json={})
    assert [answer.status_code for answer in answers] == [200] * 7
    assert not any(SECRET in answer.text for answer in answers)
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(SECRET.encode() in content for content in written)


async def test_the_page_and_the_health_check_need_no_token(tmp_path: Path) -> None:
    async with Watched(tmp_path).client(SECRET) as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/healthz")).json() == {"status": "ok"}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:1", "127.0.0.1.evil.example", "", "[::", "10.0.0.5"])
async def test_without_a_token_only_loopback_names_are_answered(tmp_path: Path, host: str) -> None:
    async with Watched(tmp_path).client() as client:
        assert (await client.get("/v1/status", headers={"host": host})).status_code == 403
        assert (await client.get("/v1/status", headers={"host": "localhost:1"})).status_code == 200


async def test_a_page_from_elsewhere_is_refused(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.start()
    async with watched.client() as client:
        stranger = {"origin": "https://evil.example"}
        assert (await client.post("/v1/stop", json={}, headers=stranger)).status_code == 403
        form = {"content-type": "text/plain"}
        assert (await client.post("/v1/stop", content="{}", headers=form)).status_code == 415
        own = {"origin": "http://127.0.0.1:1"}
        assert (await client.post("/v1/resume", json={}, headers=own)).status_code == 200
    assert not watched.run.controller.stopping


async def test_a_large_body_is_refused_also_when_its_length_is_not_said(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 1000 + 2):
            yield b" " * 1000

    json = {"content-type": "application/json"}
    async with Watched(tmp_path).client() as client:
        assert (await client.post("/v1/pause", content=b" " * 70_000, headers=json)).status_code == 413
        assert (await client.post("/v1/pause", content=chunks(), headers=json)).status_code == 413
        assert (await client.post("/v1/pause", content=b"{", headers=json)).status_code == 422


def test_other_machines_need_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYZERO_API_TOKEN", raising=False)
    check_api(ApiSettings())
    with pytest.raises(RecipeError, match=r"observe\.api\.host 0\.0\.0\.0 .* RAYZERO_API_TOKEN"):
        check_api(ApiSettings(host="0.0.0.0"))
    monkeypatch.setenv("RAYZERO_API_TOKEN", SECRET)
    check_api(ApiSettings(host="0.0.0.0"))


def test_a_token_that_can_be_guessed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("x", "0123456789abcde"):
        monkeypatch.setenv("RAYZERO_API_TOKEN", token)
        with pytest.raises(RecipeError, match=rf"RAYZERO_API_TOKEN has {len(token)} characters, and needs 16"):
            check_api(ApiSettings())
