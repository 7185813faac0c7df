"""How a run is watched and controlled from outside: its API, its experiment trackers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rayzero.services.schema.config.base import Section

TrackerName = Literal["tensorboard", "wandb", "mlflow"]


class ApiSettings(Section):
    """The control API, the live page and the metrics, served by the run's driver. Their address is in the run
    directory's api.json, where `rayzero status` finds it."""

    enabled: bool = True
    """Serve them."""
    host: str = "127.0.0.1"
    """Where to listen. Anything but this machine's loopback needs a token."""
    port: int = Field(default=0, ge=0, le=65535)
    """0: any that is free."""
    token_env: str = "RAYZERO_API_TOKEN"
    """The environment variable that holds the token, of 16 characters or more. Where it is set, every request must
    carry it (`Authorization: Bearer …`); it is written nowhere. Where it is not, the run's own user is answered."""
    advertised_host: str | None = None
    """The name under which others reach this driver; empty: `host`, or this machine's name where that is 0.0.0.0."""


class RetentionSettings(Section):
    """What a run directory keeps when a run is long. What a resume needs is always kept (the rollouts since the oldest
    checkpoint there is), and so are metrics, evaluations and the ledger, a few kilobytes an update."""

    rollout_updates: int | None = Field(default=None, ge=1)
    """Rollouts of the last so many updates, and their evaluations and dropped groups; empty: of all. `rayzero samples`,
    `regrade`, `replay` and the live page have those alone."""
    rollout_bytes: int | None = Field(default=None, ge=1_000_000)
    """Bytes of all rollout files together, the oldest go first; empty: as many as they have."""
    log_bytes: int | None = Field(default=1 << 30, ge=1_000_000)
    """Bytes of all logs together: the largest loses its first half. Empty: as many as they have."""
    event_bytes: int | None = Field(default=64 << 20, ge=100_000)
    """Bytes of events.jsonl, the oldest events go first. Empty: as many as it has."""


class OnEndSettings(Section):
    """Where a run tells its end, whether it finished, was stopped or failed: as a JSON object with `run`, `directory`,
    `ended`, `updates`, `accuracy`, `seconds`, `error` and `host`. What goes wrong there is a warning and no more. A
    process that is killed tells nothing, nor does a recipe that is refused before anything starts."""

    command: tuple[str, ...] = ()
    """A program and its arguments, run without a shell; the JSON comes on its standard input."""
    url: str | None = Field(default=None, pattern=r"^https?://")
    """Gets the JSON as a POST."""
    url_env: str | None = Field(default=None, min_length=1)
    """The environment variable that holds the URL, where the URL itself is a secret, as a chat's webhook is."""
    token_env: str | None = Field(default=None, min_length=1)
    """The environment variable whose value is sent along (`Authorization: Bearer …`)."""
    deadline_s: float = Field(default=10.0, gt=0, le=300)
    """Longest wait for either."""

    @model_validator(mode="after")
    def _tells_something(self) -> OnEndSettings:
        if not (self.command or self.url or self.url_env):
            raise ValueError("on_end tells nothing: give it a command, a url or url_env, or leave it out")
        if self.url and self.url_env:
            raise ValueError("on_end has a url and a url_env: leave one out")
        return self


class ObserveSettings(Section):
    """Watching a run. Changes nothing in what it computes, so it may differ when a run is continued."""

    api: ApiSettings = ApiSettings()
    """The control API."""
    retention: RetentionSettings = RetentionSettings()
    """What is kept on disk."""
    trackers: tuple[TrackerName, ...] = ()
    """Experiment trackers besides metrics.jsonl. Each needs its package: `pip install tensorboard`, `wandb`, `mlflow`;
    what they read from the environment (`WANDB_API_KEY`, `MLFLOW_TRACKING_URI`) is theirs."""
    on_end: OnEndSettings | None = None
    """A command or URL that hears of the run's end."""
