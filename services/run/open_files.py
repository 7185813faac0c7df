"""How many files a run may open: what Ray, its actors' connections and the API's clients take is more than 1,024."""

from __future__ import annotations

import resource

WANTED = 65_536


def raise_open_files() -> None:
    """Up to the hard limit, within reason; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
