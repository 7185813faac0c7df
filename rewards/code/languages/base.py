"""What a language other than Python must say: where its toolchain is, how a program is built, how it is run."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rayzero.rewards.sandbox import host
from rayzero.rewards.sandbox.client import Sandbox
from rayzero.rewards.sandbox.limits import MIB, Limits, Outcome


class ToolchainError(Exception):
    """This machine lacks the language's compiler or interpreter: an infrastructure failure."""


class BuildError(Exception):
    """The program does not compile: the program's failure. The message is the compiler's, shortened."""


class BuildFailure(Exception):
    """The machine could not compile: says nothing about the program."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A program ready to run: stdin in, stdout out. For calls stdin is the JSON list of arguments, stdout a JSON
    object."""

    argv: Sequence[str]
    mounts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    roots: Sequence[str] = ()


class Language(ABC):
    """One language. Subclasses fill in the attributes and `prepare`."""

    name = ""
    aliases: tuple[str, ...] = ()
    start_cpu_s = 0.0
    """What its runtime costs before the program's first line; added to the time limit."""
    start_memory_bytes = 0
    """What its runtime takes; added to the memory limit."""
    address_space = True
    """False for runtimes that reserve far more address space than they use."""

    @abstractmethod
    async def prepare(self, sandbox: Sandbox, source: str, call: str | None, build_limits: Limits) -> Prepared:
        """Compile `source`, to read stdin itself or (`call`) to have one function called. BuildError, BuildFailure,
        ToolchainError."""

    def limits(self, limits: Limits) -> Limits:
        """A test's limits with the runtime's own needs added."""
        return replace(
            limits,
            cpu_s=limits.cpu_s + self.start_cpu_s,
            wall_s=limits.wall_s + 2 * self.start_cpu_s,
            memory_bytes=limits.memory_bytes + self.start_memory_bytes,
            address_space=self.address_space,
        )


def digest(*parts: str | bytes) -> str:
    """A name for what these parts determine."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "little") + data)
    return sha.hexdigest()[:32]


def shown_folder(folder: str, marks: Sequence[str], name: str) -> tuple[str, ...]:
    """The folder that boxes must see for a toolchain; none where it lies in /usr, which they see anyway.

    ToolchainError for a folder that is not the toolchain's alone: it has none of `marks`, or a home is in it.
    """
    if folder == "/usr" or folder.startswith("/usr/"):
        return ()
    if host.holds_private(folder, host.private_folders()) or not any((Path(folder) / mark).exists() for mark in marks):
        raise ToolchainError(
            f"{name} lies in {folder}, which is no folder of a toolchain alone and would be shown to programs: "
            f"install {name} with its package, or unpack it into a folder of its own"
        )
    return (folder,)


def encoded(source: str) -> bytes:
    """Source as bytes; BuildError for lone surrogates, which no compiler reads."""
    try:
        return source.encode()
    except UnicodeEncodeError as error:
        raise BuildError("the program is not valid Unicode") from error


def compiled(outcome: Outcome) -> None:
    """Nothing for a build that succeeded; BuildError or BuildFailure for one that did not."""
    if outcome.is_infrastructure:
        raise BuildFailure(outcome.detail)
    if outcome.ended != "exited":
        raise BuildError(f"compilation ended by its {outcome.ended} limit")
    if outcome.code != 0:
        text = outcome.stderr.decode(errors="replace").strip()
        raise BuildError(f"does not compile: {text[:600]}")


def shell(*commands: str) -> list[str]:
    """Commands in a row, the last of which prints the artifact; everything else they print is stderr."""
    *steps, last = commands
    return ["/bin/sh", "-ec", "\n".join([*(f"{step} 1>&2" for step in steps), last])]


def roomy(limits: Limits) -> Limits:
    """Limits of a build, whose output is an executable."""
    return replace(limits, output_bytes=64 * MIB, file_bytes=64 * MIB)
