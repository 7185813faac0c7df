"""What the kept rollouts of a recipe say, as text: GitHub shows no HTML file, and a reader wants to see a prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from textwrap import TextWrapper
from typing import Any

from rayzero.services.schema.printable import printable

GROUPS = re.compile(r'data-part="groups">(.*?)</script>', re.DOTALL)
MAX_LINES = 12
"""Of a prompt or an answer."""
INDENT = "    "
"""Of a block of Markdown: a fence would end at one of a program's."""
WRAPPER = TextWrapper(110, drop_whitespace=False, expand_tabs=False, replace_whitespace=False)


def answers(html: str) -> Iterator[str]:
    """Lines of Markdown: each kept prompt's last message, its first answer before and after, and how many were right.

    `html`: a rollouts page, as `rollouts_page` writes it: the same prompts at the first and at the last evaluation.
    """
    found = (group for part in GROUPS.findall(html) for group in json.loads(part))
    groups = sorted(found, key=lambda group: (group["prompt_id"], group["key"]))
    by_prompt = groupby(groups, key=lambda group: group["prompt_id"])
    for number, (_, of_prompt) in enumerate(by_prompt, start=1):
        evaluations = list(of_prompt)
        yield from (f"Prompt {number}:", "", *_cut(evaluations[0]["messages"][-1]["content"]))
        for when, group in zip(("before", "after"), evaluations, strict=False):
            first = group["rollouts"][0]
            text = "".join(first.get("tokens") or first["completion"])  # tokens: the turns of tools, too
            yield from ("", f"{INDENT}— {when}, {_verdict(group['rollouts'])}:", *_cut(text))
        yield ""


def _verdict(rollouts: Sequence[Mapping[str, Any]]) -> str:
    num_right = sum(each["status"] == "correct" for each in rollouts)
    if len(rollouts) == 1:
        return "right" if num_right else "not right"
    return f"{num_right} of {len(rollouts)} right, the first"


def _cut(text: str) -> list[str]:
    """Its first lines as a block, none wider than a page."""
    lines = [part.rstrip() for line in printable(text.rstrip()).splitlines() for part in WRAPPER.wrap(line) or [""]]
    kept = lines if len(lines) <= MAX_LINES else [*lines[:MAX_LINES], "…"]
    return [(INDENT + line).rstrip() for line in kept]
