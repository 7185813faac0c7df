"""The published formats by name: a new one is a reader and a line here, and its name in schema/config/data.py."""

from __future__ import annotations

from collections.abc import Sequence

from rayzero.services.data.formats.contests import APPS, CODE_CONTESTS, TACO
from rayzero.services.data.formats.functions import ACECODER, KODCODE, LEETCODE_DATASET, MBPP
from rayzero.services.data.formats.livecodebench import LIVECODEBENCH
from rayzero.services.data.formats.open_instruct import OPEN_INSTRUCT
from rayzero.services.data.formats.open_r1 import OPEN_R1
from rayzero.services.data.formats.problem import PublishedFormat, Values
from rayzero.services.data.formats.verl import DAPO, PRIME, VERL
from rayzero.services.schema.nested import MISSING, find

FORMATS: dict[str, PublishedFormat] = {
    each.name: each
    for each in (
        VERL,
        PRIME,
        DAPO,
        OPEN_R1,
        LIVECODEBENCH,
        APPS,
        TACO,
        CODE_CONTESTS,
        LEETCODE_DATASET,
        KODCODE,
        ACECODER,
        MBPP,
        OPEN_INSTRUCT,
    )
}


def recognized(rows: Sequence[Values]) -> PublishedFormat | None:
    """The format whose marks most of these rows have, the one with more marks first; None where no format fits."""
    best: tuple[int, PublishedFormat] | None = None
    for each in FORMATS.values():
        for marks in filter(None, (each.marks, each.later_marks)):
            with_marks = sum(all(find(row, mark) is not MISSING for mark in marks) for row in rows)
            if 2 * with_marks > len(rows) and (best is None or len(marks) > best[0]):
                best = len(marks), each
    if best is None:
        return None
    return _of_family(rows) if best[1] is VERL else best[1]


def _of_family(rows: Sequence[Values]) -> PublishedFormat:
    """Which of verl's family: they differ in what their columns say, not in their columns."""
    sources = {str(find(row, "data_source")).lower() for row in rows}
    abilities = {str(find(row, "ability")).lower() for row in rows}
    if any("dapo" in source for source in sources):
        return DAPO
    return PRIME if "code" in abilities else VERL
