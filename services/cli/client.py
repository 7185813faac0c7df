"""Asks a live run over its API. Where the run is, its directory's api.json says; which token it takes, the user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from rayzero.services.schema.errors import RunUnreachable, UsageError
from rayzero.services.store.api_file import ADDRESS_FILE, RUN_HEADER, LiveRun
from rayzero.services.store.run_directory import RunDirectory

TOKEN_ENV = "RAYZERO_API_TOKEN"
CONNECT_S = 5.0
GLANCE_S = 2.0
"""For a run on another machine to say that it lives."""


@dataclass(frozen=True, slots=True)
class RunAddress:
    """Where a run's API is."""

    url: str
    run_id: str | None = None
    """Of the run that is meant: no other is asked. None: whichever is there."""
    token_env: str = TOKEN_ENV
    """The variable that holds the token, by the user's word alone: a file that named it could have any secret sent."""


class RunClient:
    """One run."""

    def __init__(self, address: RunAddress, deadline_s: float = 60.0) -> None:
        """`deadline_s` bounds every answer."""
        self.address = address
        self._run_id = address.run_id
        self._has_met = False
        self._http = httpx.Client(
            base_url=address.url,
            timeout=httpx.Timeout(deadline_s, connect=CONNECT_S),
            trust_env=False,  # a proxy meant for the outside knows nothing of this machine's loopback
        )

    def meet(self) -> None:
        """Make sure that this is the run that is meant. Without the token: another server may have its port by now.

        Raises:
            RunUnreachable: it is not, or does not answer.
        """
        if not self._has_met:
            self._send("GET", "/healthz")
            self._has_met = True

    def get(self, path: str, **query: Any) -> Any:
        """The answer to a question.

        Raises:
            UsageError: refused; says why.
            RunUnreachable: no answer.
        """
        return self._ask("GET", path, params=query)

    def change(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer to a change that is asked for. Raises as `get` does."""
        return self._ask("POST", path, json=dict(body or {}))

    def _ask(self, method: str, path: str, **details: Any) -> Any:
        self.meet()
        token = os.environ.get(self.address.token_env)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        response = self._send(method, path, headers=headers, **details)
        if response.status_code == 401:
            raise UsageError(
                f"the run at {self.address.url} asks for a token: set it in the environment variable "
                f"{self.address.token_env} (it says: {_reason(response)})"
            )
        if response.status_code >= 400:
            raise UsageError(_reason(response))
        return response.json()

    def _send(self, method: str, path: str, **details: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **details)
        except httpx.TimeoutException:
            raise RunUnreachable(f"the run at {self.address.url} did not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RunUnreachable(f"the run at {self.address.url} cannot be reached: {error}") from None
        run_id = response.headers.get(RUN_HEADER)
        if self._run_id is not None and run_id != self._run_id:
            raise RunUnreachable(f"the run at {self.address.url} has ended: another server answers there by now")
        self._run_id = run_id
        return response


def find_run(run: str | None, runs: Path, token_env: str = TOKEN_ENV) -> RunAddress:
    """Where a run is: a URL, a run directory, a name below `runs`, or (None) the only or newest live run there.

    Raises:
        RunUnreachable: no such run is alive.
    """
    if run is not None and run.startswith(("http://", "https://")):
        return RunAddress(run.rstrip("/"), token_env=token_env)
    if run is not None:
        directory = find_directory(run, runs)
        file = directory / ADDRESS_FILE
        if not file.is_file():
            raise RunUnreachable(f"the run in {directory} is not alive: {_last_words(directory)}")
        found = LiveRun.read(file)
        if found.is_alive is False:
            raise RunUnreachable(
                f"the run in {directory} was killed: `rayzero train` with its recipe goes on from its last checkpoint"
            )
        return RunAddress(found.url, found.run_id, token_env)
    for file in sorted(runs.glob(f"*/{ADDRESS_FILE}"), key=_written_s, reverse=True):
        if (live := live_run(file)) is not None:
            return RunAddress(live.url, live.run_id, token_env)
    raise RunUnreachable(f"no run below {runs} is alive; name a run directory or the URL of its API")


def live_run(file: Path) -> LiveRun | None:
    """The run that wrote an api.json, if it lives still. One on another machine is asked."""
    try:
        found = LiveRun.read(file)
        if found.is_alive is None:
            RunClient(RunAddress(found.url, found.run_id), GLANCE_S).meet()
    except RunUnreachable:
        return None
    return None if found.is_alive is False else found


def find_directory(run: str, runs: Path) -> Path:
    """A run directory by its path or by its name below `runs`. One with a recipe alone, as `rayzero new` makes it, is
    none.

    Raises:
        UsageError: there is none; names those that there are.
    """
    places = tuple(dict.fromkeys((Path(run), runs / run)))
    for directory in map(RunDirectory, places):
        if directory.is_run():
            return directory.path
    recipe = next((file for place in places if (file := place / "recipe.yaml").is_file()), None)
    known = [path.parent.name for path in sorted(runs.glob("*/recipe.yaml")) if RunDirectory(path.parent).is_run()]
    begin = "" if recipe is None else f"; `rayzero train {recipe}` begins the one of the recipe there"
    raise UsageError(
        f"no run in {' nor in '.join(map(str, places))}: name a run directory or a run below {runs}{begin}; "
        f"runs there: {', '.join(known) or 'none'}"
    )


def _written_s(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # its run has just ended
        return 0.0


def _last_words(directory: Path) -> str:
    if (directory / "summary.json").is_file():
        return "it has finished"
    there = RunDirectory(directory).has_checkpoint()
    then = "goes on from its last checkpoint" if there else "begins it anew: it has no checkpoint"
    return f"it was stopped, or has not begun; `rayzero train` with its recipe {then}"


def _reason(response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return f"the run answered {response.status_code}"
    if isinstance(detail, list):  # FastAPI's list of problems
        return "; ".join(f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in detail)
    return str(detail)
