"""Which environment variables look like a secret: by their name, or by a password in their value."""

from __future__ import annotations

import re

_PARTS = ("secret", "passw", "passphrase", "credential", "apikey", "accesskey", "privatekey")
_WORDS = frozenset({"auth", "bearer", "cookie", "dsn", "key", "keys", "netrc", "kubeconfig", "pass", "pat", "sas"})
_TOKEN = re.compile(r"token(?!iz)")
_PASSWORD_IN_URL = re.compile(r"://[^/@\s:]{0,200}:[^/@\s]{1,400}@")
"""Of a proxy or a database."""


def is_secret(name: str, value: str) -> bool:
    """Whether a variable is to be handed on, shown and written down by a user's word alone."""
    name = name.lower()
    words = name.split("_")
    return (
        not _WORDS.isdisjoint(words)
        or (len(words) > 1 and "pwd" in words)  # PWD alone is where a shell stands
        or any(part in name for part in _PARTS)
        or _TOKEN.search(name) is not None
        or _PASSWORD_IN_URL.search(value) is not None
    )
