"""The program in a completion: the last fenced block after the last </think>."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([^`\r\n]*)$")


class NoProgramError(ValueError):
    """The completion holds no program; the message says why."""


def extract(completion: str) -> str:
    """The text of the last fenced block behind the last </think> (of the whole, where there is none). Linear time.

    A fence is closed by one of its own character, at least as long, alone on its line (CommonMark 4.5).
    NoProgramError without a block, and where the last one is still open: the completion was cut off.
    """
    answer = completion.rpartition("</think>")[2]
    block: list[str] | None = None
    last: list[str] | None = None
    fence = ""
    for line in answer.splitlines():
        match = _FENCE.match(line)
        if block is None:
            if match:
                block, fence = [], match[1]
        elif match and match[1][0] == fence[0] and len(match[1]) >= len(fence) and not match[2].strip():
            last, block = block, None
        else:
            block.append(line)
    if block is not None:
        raise NoProgramError("the last fenced block is not closed")
    if last is None:
        raise NoProgramError("no fenced block")
    return "\n".join(last) + "\n"
