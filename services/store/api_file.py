"""api.json of a run directory: where its run is asked while it lives, and which of all runs that is.

The file outlives a run that is killed, and its port may be another's by then. So it names the process, and an id that
every answer of this run repeats. It names no secret, nor where one is.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from rayzero.services.schema.errors import RunUnreachable
from rayzero.services.schema.processes import pid_space, started
from rayzero.services.store.run_directory import write_atomically

ADDRESS_FILE = "api.json"
RUN_HEADER = "x-rayzero-run"
"""Of every answer: the run's id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveRun:
    """One attempt at a run, as api.json has it."""

    url: str
    run_id: str
    pid: int
    started: int
    """When the process began: its number may be another's by now."""
    pid_space: str
    """Where that number counts: a machine since its last start, and a container on it."""

    @staticmethod
    def here(url: str) -> LiveRun:
        """This process, and an id of its own."""
        pid = os.getpid()
        return LiveRun(url=url, run_id=secrets.token_hex(16), pid=pid, started=started(pid) or 0, pid_space=pid_space())

    @staticmethod
    def read(file: Path) -> LiveRun:
        """What a run has written.

        Raises:
            RunUnreachable: it is not there, not this user's, or not to be read.
        """
        try:
            owner = file.stat().st_uid
            if owner != os.getuid():
                raise RunUnreachable(
                    f"{file} was written by another user (id {owner}), and could lead anywhere: give the URL of the run"
                )
            content = json.loads(file.read_text(encoding="utf-8"))
            return LiveRun(
                url=str(content["url"]),
                run_id=str(content["run_id"]),
                pid=int(content["pid"]),
                started=int(content["started"]),
                pid_space=str(content["pid_space"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunUnreachable(
                f"{file} cannot be read, or is of another version of rayzero ({error!r}): give the URL of the run"
            ) from None

    def write(self, file: Path) -> None:
        """For this user alone to read."""
        write_atomically(file, json.dumps(asdict(self), indent=2) + "\n", private=True)

    @property
    def is_alive(self) -> bool | None:
        """Whether its process lives; None: that cannot be seen from here."""
        if self.pid_space != pid_space():
            return None
        return started(self.pid) == self.started
