"""How programs are isolated and what each may use."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from rayzero.services.schema.config.base import Section

PackageName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""Of a distribution, as pip knows it."""


SandboxBackend = Literal["auto", "bwrap", "landlock", "unsafe"]


class SandboxSettings(Section):
    """Where a model's programs run. `sandbox: unsafe` is short for `sandbox: {backend: unsafe}`."""

    backend: SandboxBackend = "auto"
    """`auto` takes bubblewrap, else Landlock, else refuses with the reason. `unsafe` is resource limits without
    isolation."""
    num_workers: int | None = Field(default=None, ge=1, le=1024)
    """Programs on the CPU at once in one judge; none: one a core."""
    python: str | None = None
    """Interpreter that runs Python programs; none: this one where boxes can reach it, else /usr/bin/python3."""
    packages: tuple[PackageName, ...] = ()
    """Third-party packages that Python programs may import, e.g. `[numpy, sortedcontainers]`: those installed beside
    rayzero, with what they need, read-only. Without it programs have the standard library alone."""
    time_limit_s: float = Field(default=2.0, gt=0, le=600)
    """CPU seconds a test, where the test's spec sets none."""
    wall_factor: float = Field(default=2.0, ge=1, le=20)
    """Wall seconds a test may take = wall_factor · time limit + wall_slack_s: the backstop for programs that sleep."""
    wall_slack_s: float = Field(default=1.0, ge=0, le=60)
    """See wall_factor."""
    total_factor: float = Field(default=10.0, ge=1)
    """CPU seconds and wall seconds that the tests which a program fails may take together, in limits of one test. Tests
    within their own limit never count: a program is not wrong for having many of them."""
    memory_mb: int = Field(default=256, ge=16, le=65536)
    """Resident MiB of a test's whole process tree, where the spec sets none."""
    num_processes: int = Field(default=64, ge=1, le=4096)
    """Processes and threads a test."""
    output_kb: int = Field(default=64, ge=1, le=65536)
    """Captured KiB a test; a test whose expected output is long gets eight times its length."""
    file_mb: int = Field(default=64, ge=1, le=4096)
    """Largest file, and the size of the private /tmp, in MiB."""
    compile_time_s: float = Field(default=15.0, gt=0, le=600)
    """CPU seconds a compilation."""
    compile_memory_mb: int = Field(default=2048, ge=64, le=65536)
    """Memory of a compilation."""
    cache_verdicts: int = Field(default=4096, ge=0)
    """Verdicts remembered by (program, tests): an identical pair is judged once."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"backend": value} if isinstance(value, str) else value
