"""Which Ray the run uses and what each actor asks of it."""

from __future__ import annotations

from pydantic import Field

from services.schema.config.base import Section


class ClusterSettings(Section):
    """Where the actors live."""

    address: str | None = None
    """A running Ray (`host:port`, or `auto` inside a Ray job). Empty: the run starts its own local Ray and ends it."""
    num_cpus: int | None = Field(default=None, ge=1)
    """CPUs of the local Ray; empty: all of the machine."""
    object_store_bytes: int = Field(default=256 * 2**20, ge=80 * 2**20)
    """Shared memory of the local Ray. Weights do not pass through it."""
    rollout_resources: dict[str, float] = Field(default_factory=dict)
    """Named Ray resources each rollout worker asks for, e.g. `{rollout: 1}`: places it on the nodes that have them."""
    reward_resources: dict[str, float] = Field(default_factory=dict)
    """Named Ray resources each reward worker asks for."""
    learner_resources: dict[str, float] = Field(default_factory=dict)
    """Named Ray resources the learner asks for."""
