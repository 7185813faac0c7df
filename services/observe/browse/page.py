"""The page: one HTML file with its style and its script inside. Live it asks the API; as a file it holds its data.

Prompts and completions are the work of a model and may hold anything. The script puts them into the page as text and
never as markup, the data of a file is JSON in which no `<` is left, and a content security policy lets no other script
run: each alone would do.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any, Literal

from rayzero.services.schema.plain import plain

Mode = Literal["live", "file"]


def live_page() -> str:
    """The page that the API serves at /."""
    return _page("live", None)


def file_page(data: dict[str, Any]) -> str:
    """The same page as one file that needs nothing else: `data` is what the API would have answered."""
    return _page("file", data)


def content_security_policy(mode: Mode) -> str:
    """Our own script and style by their digests, nothing from elsewhere; a file makes no request."""
    connect = "'self'" if mode == "live" else "'none'"
    ancestors = "; frame-ancestors 'none'" if mode == "live" else ""  # a meta tag may not say it
    return (
        f"default-src 'none'; script-src 'sha256-{_csp_digest(_script())}'; "
        f"style-src 'sha256-{_csp_digest(_asset('page.css'))}'; connect-src {connect}; img-src data:; "
        f"base-uri 'none'; form-action 'none'{ancestors}"
    )


def _page(mode: Mode, data: dict[str, Any] | None) -> str:
    embedded = json.dumps(plain(data), ensure_ascii=True, allow_nan=False).replace("<", "\\u003c") if data else "null"
    parts = {
        "@@policy@@": content_security_policy(mode) if mode == "file" else "",
        "@@style@@": _asset("page.css"),
        "@@script@@": _script(),
        "@@data@@": embedded,
    }
    page = _asset("page.html")
    if mode == "live":
        page = page.replace('<meta http-equiv="Content-Security-Policy" content="@@policy@@">\n', "")
    for place, text in parts.items():
        page = page.replace(place, text, 1)
    return page


def _script() -> str:
    return _asset("curves.js") + _asset("page.js")


@cache
def _asset(name: str) -> str:
    return resources.files("rayzero.services.observe.browse").joinpath("web", name).read_text(encoding="utf-8")


def _csp_digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
