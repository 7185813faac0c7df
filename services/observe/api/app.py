"""The control API's routes. OpenAPI at /openapi.json; the page at /; everything about a run below /v1."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from rayzero.services.observe.api.run_view import RunView
from rayzero.services.observe.browse.page import content_security_policy, live_page
from rayzero.services.observe.browse.rollout_index import Filter, Sort
from rayzero.services.observe.browse.rollout_view import compare_groups, show_group
from rayzero.services.schema.errors import RayzeroError, UsageError

MAX_PAGE = 200

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Offset = Annotated[int, Query(ge=0, le=2**31)]
Number = Annotated[int, Query(ge=0, le=2**53)]
Text = Annotated[str, Query(max_length=300)]


class Body(BaseModel):
    """A change that is asked for: unknown keys are refused, nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Scale(Body):
    """How many workers there should be; what is left out stays as it is."""

    rollout: int | None = Field(default=None, ge=0, le=10_000)
    reward: int | None = Field(default=None, ge=0, le=10_000)
    environment: int | None = Field(default=None, ge=0, le=10_000)


class Drain(Body):
    """Which worker is to be replaced."""

    worker: str = Field(min_length=1, max_length=100)
    deadline_s: float | None = Field(default=None, ge=0, le=86_400, allow_inf_nan=False)


class Nothing(Body):
    """A change that needs no words: `{}`."""


class AsciiJson(JSONResponse):
    """JSON that holds any text: half a surrogate pair, which a request may bring, has no UTF-8."""

    def render(self, content: Any) -> bytes:
        """As ASCII, everything else escaped."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def build_app(view: RunView, address: str) -> FastAPI:
    """The routes over one run. `address` is `host:port` as Prometheus reaches it."""
    app = FastAPI(title="rayzero", version="1", docs_url=None, redoc_url=None, default_response_class=AsciiJson)
    app.add_exception_handler(RayzeroError, _explain)
    app.add_exception_handler(RequestValidationError, _explain_invalid)
    _add_pages(app, view, address)
    _add_views(app, view)
    _add_rollout_lists(app, view)
    _add_rollout_details(app, view)
    _add_changes(app, view)
    return app


def _add_pages(app: FastAPI, view: RunView, address: str) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(live_page(), headers={"content-security-policy": content_security_policy("live")})

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Answers while the driver's event loop runs."""
        return {"status": "ok"}

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        controller = view.control.controller if view.control is not None else None
        return Response(view.meters.exposition(controller), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/sd")
    async def targets() -> list[dict[str, Any]]:
        """Prometheus' http_sd: every metrics endpoint of the run, of now."""
        return view.targets(address)


def _add_views(app: FastAPI, view: RunView) -> None:
    @app.get("/v1/status")
    async def status() -> dict[str, Any]:
        """The run at a glance."""
        return view.status()

    @app.get("/v1/workers")
    async def workers() -> list[dict[str, Any]]:
        """Every worker: role, state, groups in flight, policy version and lag."""
        return list(view.status().get("workers", []))

    @app.get("/v1/queues")
    async def queues() -> dict[str, Any]:
        """Live groups by state, the longest wait of each, room, drops."""
        return dict(view.status().get("queues", {}))

    @app.get("/v1/weights")
    async def weights() -> dict[str, Any]:
        """The learner's policy version and that of every engine."""
        return dict(view.status().get("weights", {}))

    @app.get("/v1/recipe")
    async def recipe() -> dict[str, Any]:
        """The resolved recipe. It holds no secrets: those stand in environment variables that it names."""
        return view.recipe.model_dump(mode="json")

    @app.get("/v1/rows")
    async def rows(after: Number = 0, limit: Annotated[int, Query(ge=1, le=5000)] = 2000) -> dict[str, Any]:
        """Rows of metrics.jsonl whose update is higher than `after`, and all evaluations."""
        return {"rows": [row for row in view.rows if row["update"] > after][:limit], "evaluations": view.evaluations}

    @app.get("/v1/events")
    async def events(after: Number = 0, limit: Limit = 100) -> list[dict[str, Any]]:
        """What happened besides training, oldest first; `after` is the highest number seen."""
        return view.events.after(after, limit)


def _add_rollout_lists(app: FastAPI, view: RunView) -> None:
    @app.get("/v1/groups")
    async def groups(
        kind: Literal["", "train", "evaluation", "dropped"] = "",
        version: Annotated[int | None, Query(ge=0, le=2**31)] = None,
        source: Text = "",
        status: Literal["", "correct", "wrong", "error"] = "",
        worker: Text = "",
        prompt_id: Text = "",
        finish_reason: Text = "",
        max_reward: Annotated[float | None, Query(allow_inf_nan=False)] = None,
        min_reward: Annotated[float | None, Query(allow_inf_nan=False)] = None,
        sort: Sort = "newest",
        limit: Limit = 20,
        offset: Offset = 0,
    ) -> dict[str, Any]:
        """A page of groups with the figures of their rollouts."""
        wanted = Filter(
            kind=kind,
            version=version,
            source=source,
            status=status,
            worker=worker,
            prompt_id=prompt_id,
            finish_reason=finish_reason,
            max_reward=max_reward,
            min_reward=min_reward,
        )
        return await asyncio.to_thread(_groups, view, wanted, sort, limit, offset)

    @app.get("/v1/samples")
    async def samples(
        status: Literal["", "correct", "wrong", "error"] = "",
        version: Annotated[int | None, Query(ge=0, le=2**31)] = None,
        limit: Limit = 20,
        offset: Offset = 0,
    ) -> list[dict[str, Any]]:
        """Whole rollouts, newest first."""

        def read() -> list[dict[str, Any]]:
            view.index.refresh()
            return list(view.index.rollouts(Filter(status=status, version=version), limit, offset))

        return await asyncio.to_thread(read)

    @app.get("/v1/choices")
    async def choices() -> dict[str, Any]:
        """What groups can be filtered by."""

        def read() -> dict[str, Any]:
            view.index.refresh()
            return view.index.choices()

        return await asyncio.to_thread(read)


def _groups(view: RunView, wanted: Filter, sort: Sort, limit: int, offset: int) -> dict[str, Any]:
    view.index.refresh()
    page, total = view.index.groups(wanted, sort, limit, offset)
    return {"groups": page, "total": total, "offset": offset}


def _add_rollout_details(app: FastAPI, view: RunView) -> None:
    @app.get("/v1/groups/{key}")
    async def group(key: str) -> dict[str, Any]:
        """One group: its prompt, every completion with its tokens, its verdict and its tests."""

        def read() -> dict[str, Any]:
            view.index.refresh()
            return show_group(view.index, view.tokens, key)

        return await asyncio.to_thread(read)

    @app.get("/v1/compare")
    async def compare(prompt_id: Text, a: Number, b: Number) -> dict[str, Any]:
        """One prompt's rollouts at two policy versions."""
        return await asyncio.to_thread(compare_groups, view.index, view.tokens, prompt_id, a, b)


def _add_changes(app: FastAPI, view: RunView) -> None:
    @app.post("/v1/scale", status_code=202)
    async def scale(wanted: Scale, request: Request) -> dict[str, Any]:
        """Change how many workers there are. Answers at once; `fleets` of the status shows how far it is."""
        if not wanted.model_dump(exclude_none=True):
            raise UsageError("name a role and a number, e.g. rollout=3")
        control = view.live()
        before = {role: fleet["target"] for role, fleet in view.status()["fleets"].items()}
        await control.scale(**wanted.model_dump(exclude_none=True))
        _record(view, request, "scale", before=before, wanted=wanted.model_dump(exclude_none=True))
        return {"before": before, "fleets": view.status()["fleets"]}

    @app.post("/v1/pause")
    async def pause(_: Nothing, request: Request) -> dict[str, Any]:
        """Finish what is in hand and begin nothing. Answers when nothing moves."""
        await view.live().pause()
        _record(view, request, "pause")
        return {"paused": True}

    @app.post("/v1/resume")
    async def resume(_: Nothing, request: Request) -> dict[str, Any]:
        """Go on after a pause."""
        await view.live().resume()
        _record(view, request, "resume")
        return {"paused": False}

    @app.post("/v1/drain")
    async def drain(wanted: Drain, request: Request) -> dict[str, Any]:
        """Let a worker finish its groups and leave, a new one in its place. Answers when it has left."""
        await view.live().drain(wanted.worker, deadline_s=wanted.deadline_s)
        _record(view, request, "drain", worker=wanted.worker)
        return {"drained": wanted.worker}

    @app.post("/v1/checkpoint")
    async def checkpoint(_: Nothing, request: Request) -> dict[str, Any]:
        """Save now, between two updates. Answers when it is saved."""
        version = await view.live().checkpoint()
        _record(view, request, "checkpoint", version=version)
        return {"version": version}

    @app.post("/v1/stop", status_code=202)
    async def stop(_: Nothing, request: Request) -> dict[str, Any]:
        """Finish the update in hand, save, end the run. The same command continues it."""
        control = view.live()
        _record(view, request, "stop")
        await control.stop()
        return {"stopping": True}


def _record(view: RunView, request: Request, change: str, **details: Any) -> None:
    view.events.record(change, caller=request.client.host if request.client else "", **details)


async def _explain(request: Request, error: Exception) -> JSONResponse:
    """Our own errors say what to do; they are the caller's when they refuse what was asked, ours otherwise."""
    status = 409 if isinstance(error, UsageError) else 500
    return AsciiJson({"detail": str(error)}, status_code=status)


async def _explain_invalid(request: Request, error: Exception) -> JSONResponse:
    """Where, and what is wrong; not what was given, which may be NaN and no JSON."""
    assert isinstance(error, RequestValidationError)
    problems = [{name: problem[name] for name in ("type", "loc", "msg")} for problem in error.errors()]
    return AsciiJson({"detail": problems}, status_code=422)
