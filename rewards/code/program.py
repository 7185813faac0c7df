"""The program in a completion: a fenced block of the answer part."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from rayzero.rewards.answer_part import answer_part

_FENCE = re.compile(r"^([ \t]*)(`{3,}(?!`)|~{3,}(?!~))[ \t]*(?![ \t])([^`\r\n]*)$")
_TAGS = {
    "python": ("python", "python3", "py", "py3", "python2", "pypy", "pypy3"),
    "cpp": ("cpp", "c++", "cc", "cxx", "g++", "cpp17", "cpp20", "c++17", "c++20", "c"),
    "java": ("java",),
    "javascript": ("javascript", "js", "node", "nodejs", "jsx", "mjs"),
    "go": ("go", "golang"),
    "rust": ("rust", "rs"),
}
_OTHER_TAGS_TEXT = """
    bash sh shell zsh console terminal cmd powershell ps1 text txt plaintext plain output out stdout stdin input
    json yaml yml toml xml html css sql csv tsv diff patch markdown md latex tex math ini makefile dockerfile pycon
    c# cs csharp kotlin kt swift ruby rb php perl scala haskell hs lua r julia typescript ts mermaid log error
    traceback
"""
_OTHER_TAGS = frozenset(_OTHER_TAGS_TEXT.split())
_SESSION = re.compile(r"\s*(?:>>>|\$ |In \[\d+\]:|Input:|Output:)")
_DOES_SOMETHING = {
    "python": re.compile(r"^[ \t]*(?:async\s+def|def|class|import|from|for|while|with)\s|\w\s*\(", re.MULTILINE),
    "": re.compile(r"[;{}]|\w\s*\("),
}
_READS = re.compile(
    r"\binput\b|\bstdin\b|\bopen\s*\(|\bread\w*\b|\bcin\b|\bscanf\b|\bgetline\b|\bScanner\b|\bSystem\.in\b|\bScan\w*\b"
)


class NoProgramError(ValueError):
    """The completion holds no program; the message says why."""


@dataclass(frozen=True, slots=True)
class _Block:
    tag: str
    text: str


def extract(
    completion: str,
    language: str = "python",
    *,
    names: Collection[str] = (),
    reads: bool = False,
) -> str:
    """The program among the fenced blocks of the answer part. Linear time.

    The last block tagged as `language` or not at all that defines one of `names` (what the tests call), or, without
    names, does something and, where `reads`, reads its input; failing that, the last block there is. A fence is closed
    by one of its own character, at least as long, alone on its line (CommonMark 4.5); it may be indented.

    NoProgramError without a block, where the last one is still open (the completion was cut off), and where the thought
    never ended: a draft in a thought is no answer.
    """
    answer = answer_part(completion)
    if answer is None:
        raise NoProgramError("the thought never ends: no </think>")
    blocks = _blocks(answer)
    if not blocks:
        raise NoProgramError("no fenced block")
    return _best(blocks, _family(language), names, reads).text


def _blocks(answer: str) -> list[_Block]:
    blocks: list[_Block] = []
    lines: list[str] | None = None
    fence, indent, tag = "", "", ""
    for line in answer.splitlines():
        match = _FENCE.match(line)
        if lines is None:
            if match:
                lines, (indent, fence, info) = [], match.groups()
                tag = _tag(info)
        elif match and _closes(match, fence, indent):
            blocks.append(_Block(tag, "\n".join(lines) + "\n"))
            lines = None
        else:
            lines.append(_dedented(line, indent))
    if lines is not None:
        raise NoProgramError("the last fenced block is not closed")
    return blocks


def _closes(match: re.Match[str], fence: str, indent: str) -> bool:
    is_alone = match[2][0] == fence[0] and len(match[2]) >= len(fence) and not match[3].strip()
    # Deeper than that it belongs to the block: a docstring may hold a fence of its own.
    return is_alone and len(match[1].expandtabs(4)) <= len(indent.expandtabs(4)) + 3


def _dedented(line: str, indent: str) -> str:
    """`line` without the blanks that stood before the fence, as far as it has them."""
    if line.startswith(indent):
        return line[len(indent) :]
    bare = line.lstrip(" \t")
    return bare if len(line) - len(bare) < len(indent) else line


def _tag(info: str) -> str:
    words = info.strip().strip("{}").split(None, 1)
    return words[0].lower().strip(".,:") if words else ""


def _family(language: str) -> str:
    lowered = language.lower()
    return next((family for family, tags in _TAGS.items() if lowered in tags), lowered)


def _best(blocks: list[_Block], family: str, names: Collection[str], reads: bool) -> _Block:
    own = _TAGS.get(family, (family,))
    foreign = _OTHER_TAGS.union(*(tags for other, tags in _TAGS.items() if other != family))
    offered = [block for block in blocks if block.tag in own or block.tag not in foreign]
    for block in reversed(offered):
        if names and any(defines(block.text, name, family) for name in names):
            return block
    tagged = [block for block in offered if block.tag in own]
    working = [block for block in tagged or offered if _does_something(block.text, family)]
    if reads:
        working = [block for block in working if _READS.search(block.text)] or working
    return (working or offered or blocks)[-1]


def _does_something(text: str, family: str) -> bool:
    pattern = _DOES_SOMETHING.get(family, _DOES_SOMETHING[""])
    return not _SESSION.match(text) and pattern.search(text) is not None


def defines(text: str, name: str, family: str = "python") -> bool:
    """Whether a program of that language seems to define `name`: by its form, since parsing what a model wrote may take
    any time."""
    own = re.escape(name)
    if family == "python":
        pattern = (
            rf"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+{own}\b|^{own}[ \t]*(?::[^=\n]+)?=[^=]"
            rf"|^[ \t]*(?:from[ \t]+\S+[ \t]+)?import\b.*\b{own}\b"
        )
    elif family == "javascript":
        pattern = rf"\b(?:function\*?|class)\s+{own}\b|\b{own}\s*[=:]\s*[^=]|\b{own}\s*\([^()]*\)\s*\{{"
    elif family == "go":
        pattern = rf"\bfunc\s+(?:\([^()]*\)\s*)?{own}\b|\btype\s+{own}\b"
    elif family == "rust":
        snake = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match[1].lower(), name)
        pattern = rf"\b(?:fn|struct)\s+(?:{own}|{re.escape(snake)})\b"
    else:
        head = rf"[\w>\]&*]\s{{1,20}}[&*]*{own}\s*\([^;{{}}]{{0,400}}\)[^;{{}}()]{{0,200}}\{{"
        pattern = rf"\b(?:class|struct)\s+{own}\b|{head}|\b{own}\s*="
    return re.search(pattern, text, re.MULTILINE) is not None
