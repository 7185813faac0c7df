"""The page's file: its data cannot end its script, its policy lets its own script run and no other."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from rayzero.services.observe.browse.page import content_security_policy, file_page, live_page

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> @@script@@ <!-- \u2028"


def scripts(page: str) -> list[tuple[str, str]]:
    return re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)


def test_hostile_data_stays_data() -> None:
    page = file_page({"text": HOSTILE})
    data, script = scripts(page)
    assert "application/json" in data[0] and json.loads(data[1]) == {"text": HOSTILE}
    assert script[1] == scripts(live_page())[1][1]
    assert "<img" not in page


def test_the_policy_names_exactly_the_pages_script() -> None:
    page = file_page({"text": "x"})
    digest = base64.b64encode(hashlib.sha256(scripts(page)[1][1].encode()).digest()).decode()
    policy = content_security_policy("file")
    assert f"script-src 'sha256-{digest}'" in policy and "unsafe" not in policy and policy in page
    assert "connect-src 'none'" in policy and "connect-src 'self'" in content_security_policy("live")


def test_the_script_never_makes_markup_of_text() -> None:
    script = scripts(live_page())[1][1]
    for risky in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert risky not in script
