"""The environment of children that judge: without whatever looks like a secret."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_PARTS = ("secret", "passw", "passphrase", "credential", "apikey", "accesskey", "privatekey")
_WORDS = frozenset({"auth", "bearer", "cookie", "dsn", "key", "keys", "netrc", "kubeconfig", "pass", "pat", "sas"})
_TOKEN = re.compile(r"token(?!iz)")
_PASSWORD_IN_URL = re.compile(r"://[^/@\s:]{0,200}:[^/@\s]{1,400}@")
"""Of a proxy or a database."""


def without_secrets(environment: Mapping[str, str], keep: Collection[str] = ()) -> dict[str, str]:
    """What a child inherits. `keep`: variables that a recipe hands over by name, secrets or not."""
    return {name: value for name, value in environment.items() if name in keep or not _is_secret(name.lower(), value)}


def _is_secret(name: str, value: str) -> bool:
    words = name.split("_")
    return (
        not _WORDS.isdisjoint(words)
        or (len(words) > 1 and "pwd" in words)  # PWD alone is where a shell stands
        or any(part in name for part in _PARTS)
        or _TOKEN.search(name) is not None
        or _PASSWORD_IN_URL.search(value) is not None
    )
