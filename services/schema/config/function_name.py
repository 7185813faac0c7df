"""Names of Python functions in a recipe, `module:function`; a name that has moved is refused with the new one."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

MOVED = {
    "services.tasks": "rayzero.services.data.tasks.numbers",
    "services.tasks_words": "rayzero.services.data.tasks.words",
    "services.tasks_code": "rayzero.services.data.tasks.code",
}
"""Modules of rayzero that recipes name: before they were installed as one package, and now."""


def _is_where_it_was(name: str) -> str:
    module, _, function = name.partition(":")
    if module in MOVED:
        raise ValueError(f"{name} is {MOVED[module]}:{function} now (docs/moved.md)")
    return name


FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"), AfterValidator(_is_where_it_was)]
"""`module:function`, importable where the driver runs."""
