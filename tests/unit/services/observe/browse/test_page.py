"""The page's file: its data cannot end its script, its policy lets its own script run and no other."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

from rayzero.services.observe.browse.page import GROUPS_A_PART, content_security_policy, file_page, live_page

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> @@script@@ @@groups@@ <!-- \u2028"
)
NONE: dict[str, Any] = {"summaries": [], "groups": {}}


def scripts(page: str) -> list[tuple[str, str]]:
    return re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)


def test_hostile_data_stays_data() -> None:
    page = file_page({"text": HOSTILE, "summaries": [{"key": HOSTILE}], "groups": {HOSTILE: {"text": HOSTILE}}})
    data, script, summaries, groups = scripts(page)
    assert "application/json" in data[0] and json.loads(data[1])["text"] == HOSTILE
    assert json.loads(summaries[1]) == [{"key": HOSTILE}] and json.loads(groups[1]) == [{"text": HOSTILE}]
    assert script[1] == scripts(live_page())[1][1]
    assert "<img" not in page


def test_the_policy_names_exactly_the_pages_script() -> None:
    page = file_page({"text": "x"} | NONE)
    digest = base64.b64encode(hashlib.sha256(scripts(page)[1][1].encode()).digest()).decode()
    policy = content_security_policy("file")
    assert f"script-src 'sha256-{digest}'" in policy and "unsafe" not in policy and policy in page
    assert "connect-src 'none'" in policy and "connect-src 'self'" in content_security_policy("live")


def test_the_script_never_makes_markup_of_text() -> None:
    script = scripts(live_page())[1][1]
    for risky in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert risky not in script


def test_groups_stand_behind_the_script_in_parts_of_the_lists_order() -> None:
    keys = [f"update_1:{number}" for number in range(2 * GROUPS_A_PART + 1)]
    groups = {key: {"key": key} for key in reversed(keys)}
    page = file_page({"summaries": [{"key": key} for key in keys], "groups": groups})
    data, _, _, *parts = scripts(page)
    found = [group["key"] for part in parts for group in json.loads(part[1])]
    assert found == keys and len(parts) == 3
    assert json.loads(data[1]) == {"groups_a_part": GROUPS_A_PART}, "what is drawn first is small"
