"""Environment variables in recipes: `${NAME}`, or `${NAME:-default}`, within any text; `$${NAME}` is the text itself.

A run directory's recipe.yaml holds the values, so that a run goes on with them. A variable that looks like a secret is
therefore refused: what needs one reads it from the environment itself (`reward: {environment: [NAME]}`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.secrets import is_secret

_VARIABLE = re.compile(r"\$(\$?)\{([A-Z_][A-Z0-9_]*)(?::-([^{}]*))?\}")
Location = tuple[str | int, ...]


def with_variables(
    content: Any, environment: Mapping[str, str], origins: Mapping[Location, str], default_origin: str
) -> Any:
    """Plain data with the variables of its texts replaced.

    Raises:
        RecipeError: one is not set, or looks like a secret; names the key and where it is written.
    """

    def replaced(value: Any, location: Location) -> Any:
        if isinstance(value, dict):
            return {name: replaced(item, (*location, str(name))) for name, item in value.items()}
        if isinstance(value, list):
            return [replaced(item, (*location, place)) for place, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        try:
            return _VARIABLE.sub(lambda found: _value(found, environment), value)
        except RecipeError as error:
            key = ".".join(map(str, location))
            raise RecipeError(f"{_origin(location, origins) or default_origin}: {key}: {error}") from None

    return replaced(content, ())


def _value(found: re.Match[str], environment: Mapping[str, str]) -> str:
    escaped, name, default = found.groups()
    if escaped:
        return found[0][1:]
    value = environment.get(name, default)
    if value is None:
        raise RecipeError(
            f"the environment variable {name} is not set: export it, give a default with ${{{name}:-…}}, or write "
            f"$${{{name}}} for the text itself"
        )
    if is_secret(name, value):
        raise RecipeError(
            f"{name} looks like a secret, and the run directory's recipe.yaml would hold it: name the variable to what "
            "needs it instead (`environment: [NAME]` of a custom reward, `token_env`)"
        )
    return value


def _origin(location: Location, origins: Mapping[Location, str]) -> str | None:
    while location:
        if location in origins:
            return origins[location]
        location = location[:-1]
    return None
