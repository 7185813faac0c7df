"""The environment of children that judge: without whatever looks like a secret."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rayzero.services.schema.secrets import is_secret


def without_secrets(environment: Mapping[str, str], keep: Collection[str] = ()) -> dict[str, str]:
    """What a child inherits. `keep`: variables that a recipe hands over by name, secrets or not."""
    return {name: value for name, value in environment.items() if name in keep or not is_secret(name, value)}
