"""The tool `python`: what a model wrote, run in the sandbox, each call by itself."""

from __future__ import annotations

from rayzero.rewards.sandbox.client import Sandbox, SandboxConfig, SandboxRefusedError
from rayzero.rewards.sandbox.inside import wire
from rayzero.rewards.sandbox.limits import MIB, Limits
from rayzero.services.schema.config.sandbox import SandboxSettings
from rayzero.services.schema.errors import ActorStartError, EnvironmentFailed

_ENDS = {
    "cpu": "it used up its CPU time",
    "wall": "it took too long",
    "memory": "it used too much memory",
    "output": "it printed too much",
    "processes": "it started too many processes",
    "files": "it wrote too much",
}


class Programs:
    """Runs programs side by side, as many at a time as the settings say, or the machine has cores."""

    def __init__(self, settings: SandboxSettings, step_s: float) -> None:
        """`step_s`: what one step of an episode may take; a program ends before."""
        self._sandbox = Sandbox(
            SandboxConfig(
                backend=settings.backend,
                python=settings.python,
                num_workers=settings.num_workers,
                tmp_bytes=settings.file_mb * MIB,
            )
        )
        wall_s = settings.wall_factor * settings.time_limit_s + settings.wall_slack_s
        self._limits = Limits(
            cpu_s=settings.time_limit_s,
            wall_s=min(wall_s, 0.8 * step_s),
            memory_bytes=settings.memory_mb * MIB,
            num_processes=settings.num_processes,
            output_bytes=settings.output_kb * 1024,
            file_bytes=settings.file_mb * MIB,
        )
        self._packages = settings.packages

    async def start(self) -> None:
        """Raises ActorStartError, with the fix, where this machine cannot isolate a program."""
        try:
            await self._sandbox.start()
        except SandboxRefusedError as error:
            raise ActorStartError(str(error)) from None

    async def run(self, code: str) -> tuple[str, bool]:
        """What it printed, and how it failed; whether it failed."""
        packages = await self._sandbox.packages(self._packages)
        job = {"mode": "stdio", "source": code, "packages": packages}
        outcome = await self._sandbox.python(job, self._limits)
        if outcome.is_infrastructure:
            raise EnvironmentFailed(f"the sandbox could not run a program: {outcome.detail or outcome.ended}")
        printed = outcome.stdout.decode("utf-8", "replace")
        if outcome.ended == "exited" and outcome.code == 0:
            return printed, False
        why = _ENDS.get(outcome.ended) or _error(outcome.result) or f"it ended with status {outcome.code}"
        return f"{printed}{ {'error': why}!s}", True

    async def close(self) -> None:
        """End the sandbox and every program in it."""
        await self._sandbox.close()


def _error(result: bytes) -> str:
    """What the program raised, as it says itself."""
    try:
        text = wire.only_frame(result)["error"]
    except (KeyError, TypeError):
        return ""
    return text[:500] if isinstance(text, str) else ""
