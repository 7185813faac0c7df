"""LeetCode's `ListNode` and `TreeNode`: which of them a program uses and leaves to its judge to define."""

from __future__ import annotations

import re

NAMES = ("ListNode", "TreeNode")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)


def undefined_nodes(source: str) -> list[str]:
    """Those that the source names and, outside of comments, does not define (C++, Java, Go, JavaScript, Rust)."""
    code = _COMMENT.sub(" ", source)
    found = []
    for name in NAMES:
        defined = rf"\b(?:struct|class|record|function|type)\s+{name}\b(?!\s*[;*])|\b(?:const|let|var)\s+{name}\s*="
        if re.search(rf"\b{name}\b", source) and not re.search(defined, code):
            found.append(name)
    return found
