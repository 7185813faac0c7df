"""Which environment variables look like a secret: by their name, by a password in their value, or as a known token."""

from __future__ import annotations

import re

_PARTS = ("secret", "passw", "passphrase", "credential", "apikey", "accesskey", "privatekey")
_WORDS = frozenset({"auth", "bearer", "cookie", "dsn", "key", "keys", "netrc", "kubeconfig", "pass", "pat", "sas"})
_TOKEN = re.compile(r"token(?!iz)")
_PASSWORD_IN_URL = re.compile(r"://[^/@\s:]{0,200}:[^/@\s]{1,400}@")
"""Of a proxy or a database."""
_KNOWN_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20}|sk-[\w-]{20}|gh[oprsu]_[A-Za-z0-9]{20}|github_pat_\w{20}|glpat-[\w-]{16}|xox[abeoprs]-[\w-]{10}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}\b|AIza[\w-]{30}|eyJ[\w-]{10,4000}\.eyJ)|-----BEGIN [A-Z ]{0,40}PRIVATE KEY"
)
"""As hubs, clouds and model APIs make them, whatever the variable is called."""


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
        or _KNOWN_TOKEN.search(value) is not None
    )
