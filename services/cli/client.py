"""Asks a live run over its API. Where the run is, its directory's api.json says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from rayzero.services.schema.errors import RunUnreachable, UsageError

ADDRESS_FILE = "api.json"
TOKEN_ENV = "RAYZERO_API_TOKEN"
CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class RunAddress:
    """Where a run's API is."""

    url: str
    token_env: str = TOKEN_ENV


class RunClient:
    """One run."""

    def __init__(self, address: RunAddress, deadline_s: float = 60.0) -> None:
        """`deadline_s` bounds every answer."""
        self.address = address
        token = os.environ.get(address.token_env)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=address.url,
            headers=headers,
            timeout=httpx.Timeout(deadline_s, connect=CONNECT_S),
            trust_env=False,  # a proxy meant for the outside knows nothing of this machine's loopback
        )

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
        try:
            response = self._http.request(method, path, **details)
        except httpx.TimeoutException:
            raise RunUnreachable(f"the run at {self.address.url} did not answer in time") from None
        except httpx.HTTPError as error:
            raise RunUnreachable(f"the run at {self.address.url} cannot be reached: {error}") from None
        if response.status_code == 401:
            raise UsageError(
                f"the run at {self.address.url} asks for a token: set it in the environment variable "
                f"{self.address.token_env}"
            )
        if response.status_code >= 400:
            raise UsageError(_reason(response))
        return response.json()


def find_run(run: str | None, runs: Path) -> RunAddress:
    """Where a run is: a URL, a run directory, a name below `runs`, or (None) the only or newest live run there.

    Raises:
        RunUnreachable: no such run is alive.
    """
    if run is not None and run.startswith(("http://", "https://")):
        return RunAddress(run.rstrip("/"))
    if run is not None:
        directory = find_directory(run, runs)
        file = directory / ADDRESS_FILE
        if not file.is_file():
            raise RunUnreachable(f"the run in {directory} is not alive: {_last_words(directory)}")
        return _read(file)
    live = sorted(runs.glob(f"*/{ADDRESS_FILE}"), key=lambda file: file.stat().st_mtime)
    if not live:
        raise RunUnreachable(f"no run below {runs} is alive; name a run directory or the URL of its API")
    return _read(live[-1])


def find_directory(run: str, runs: Path) -> Path:
    """A run directory by its path or by its name below `runs`.

    Raises:
        UsageError: there is none; names those that there are.
    """
    for directory in (Path(run), runs / run):
        if (directory / "recipe.yaml").is_file():
            return directory.resolve()
    known = ", ".join(sorted(path.parent.name for path in runs.glob("*/recipe.yaml"))) or "none"
    raise UsageError(f"{run} is neither a run directory nor a run below {runs}; runs there: {known}")


def _read(file: Path) -> RunAddress:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return RunAddress(str(content["url"]), str(content["token_env"]))
    except (OSError, ValueError, KeyError) as error:
        raise RunUnreachable(f"{file} cannot be read: {error}") from None


def _last_words(directory: Path) -> str:
    if (directory / "summary.json").is_file():
        return "it has finished"
    return "it was stopped, or has not begun; `rayzero train` with its recipe goes on from its last checkpoint"


def _reason(response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return f"the run answered {response.status_code}"
    if isinstance(detail, list):  # FastAPI's list of problems
        return "; ".join(f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in detail)
    return str(detail)
