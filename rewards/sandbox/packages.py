"""Third-party packages for the boxes: copies of what is installed beside rayzero, read-only and nothing else of it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from rayzero.rewards.sandbox import host

MAX_BYTES = 2 << 30
_REQUIRED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SKIPPED = re.compile(r"(^|/)(__pycache__|tests?|testing/tests)(/|$)|\.(pyc|pyi|pxd|h|a)$|(^|/)\.\.(/|$)|^/")


class PackageError(Exception):
    """A package that boxes cannot have: the machine's set-up, not the program's fault."""


def closure(names: Iterable[str]) -> list[metadata.Distribution]:
    """The distributions of these names and what they need, without extras. PackageError for one not installed."""
    found: dict[str, metadata.Distribution] = {}
    rest = [(name, True) for name in names]
    while rest:
        name, is_asked = rest.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            found[key] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if is_asked:
                raise PackageError(f"packages: {name!r} is not installed beside rayzero (pip install {name})") from None
            continue  # needed elsewhere, e.g. on Windows
        required = [text for text in found[key].requires or () if "extra ==" not in text]
        rest += [(match.group(), False) for text in required if (match := _REQUIRED.match(text))]
    return [found[key] for key in sorted(found)]


def provide(names: Sequence[str], scratch: str, python: str | None) -> str:
    """Copy the packages where boxes may read them; the name of their folder under host.PACKAGES.

    PackageError where one is missing, too large, or made for another version of Python than the boxes have.
    """
    distributions = closure(names)
    spelt = "\n".join(f"{each.metadata['Name']}=={each.version}" for each in distributions)
    key = hashlib.sha256(spelt.encode()).hexdigest()[:16]
    parent = Path(scratch, host.PACKAGES)
    if (parent / key).is_dir():
        return key
    _require_same_python(python)
    made = Path(tempfile.mkdtemp(dir=parent, prefix=".new-"))
    try:
        _copy(distributions, made)
        for folder, _, files in os.walk(made):
            os.chmod(folder, 0o755)
            for name in files:
                os.chmod(os.path.join(folder, name), 0o644)
        os.rename(made, parent / key)
    except OSError as error:
        if not (parent / key).is_dir():  # another request may have been first
            raise PackageError(f"packages: cannot copy {', '.join(names)}: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return key


def _copy(distributions: Sequence[metadata.Distribution], target: Path) -> None:
    num_bytes = 0
    for each in distributions:
        if each.files is None:
            raise PackageError(f"packages: {each.metadata['Name']} lists no files: install it as a wheel")
        root = Path(str(each.locate_file(""))).resolve()
        for file in each.files:
            source = Path(str(each.locate_file(file)))
            # Scripts and whatever else lies outside of the folder of packages stay where they are.
            if _SKIPPED.search(str(file)) or not source.is_file() or root not in source.resolve().parents:
                continue
            num_bytes += source.stat().st_size
            if num_bytes > MAX_BYTES:
                raise PackageError(f"packages: together they are larger than {MAX_BYTES >> 30} GiB")
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / file)


def _require_same_python(python: str | None) -> None:
    """Compiled packages of one version do not load in another."""
    interpreter = host.find_interpreter(python)
    own = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    if interpreter is None or interpreter.path == own:
        return
    asked = subprocess.run(
        [interpreter.path, "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    mine = "{}.{}".format(*sys.version_info[:2])
    if asked.stdout.strip() != mine:
        raise PackageError(
            f"packages: they are installed for Python {mine}, and boxes run {asked.stdout.strip() or 'another'}: "
            "set `sandbox.python`"
        )
