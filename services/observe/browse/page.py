"""The page: one HTML file with its style and its script inside. Live it asks the API; as a file it holds its data: the
run at a glance before the script, the groups behind it in parts, so that it is drawn before a large file is read whole.

Prompts and completions are the work of a model and may hold anything. The script puts them into the page as text and
never as markup, the data of a file is JSON in which no `<` is left, and a content security policy lets no other script
run: each alone would do.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any, Literal

from rayzero.services.schema.plain import plain

Mode = Literal["live", "file"]
GROUPS_A_PART = 20
"""Read at once when one of them is opened."""


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
    before = {"groups_a_part": GROUPS_A_PART} | {
        key: value for key, value in (data or {}).items() if key not in ("summaries", "groups")
    }
    embedded = _json(before) if data else "null"
    parts = {
        "@@policy@@": content_security_policy(mode) if mode == "file" else "",
        "@@style@@": _asset("page.css"),
        "@@script@@": _script(),
        "@@data@@": embedded,
        "@@groups@@": "".join(_groups(data)) if data else "",
    }
    page = _asset("page.html")
    if mode == "live":
        page = page.replace('<meta http-equiv="Content-Security-Policy" content="@@policy@@">\n', "")
    for place, text in parts.items():
        page = page.replace(place, text, 1)
    return page


def _groups(data: dict[str, Any]) -> Iterator[str]:
    """The list of groups, then the groups themselves in its order, `GROUPS_A_PART` in each part."""
    summaries = data.get("summaries", ())
    yield _part("summaries", summaries)
    found = [data["groups"][each["key"]] for each in summaries]
    for start in range(0, len(found), GROUPS_A_PART):
        yield _part("groups", found[start : start + GROUPS_A_PART])


def _part(name: str, content: Any) -> str:
    return f'<script type="application/json" data-part="{name}">{_json(content)}</script>\n'


def _json(content: Any) -> str:
    """JSON in which no `<` is left, so that no text of a model ends its element, and no place of the page's."""
    text = json.dumps(plain(content), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace("@@", "\\u0040@")


def _script() -> str:
    return _asset("curves.js") + _asset("page.js")


@cache
def _asset(name: str) -> str:
    return resources.files("rayzero.services.observe.browse").joinpath("web", name).read_text(encoding="utf-8")


def _csp_digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
