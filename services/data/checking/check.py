"""A file of prompts from its name to its report: what `rayzero data check` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from rayzero.services.data.checking.inspection import Inspection
from rayzero.services.data.checking.proposal import Proposal, propose
from rayzero.services.data.checking.references import grade_references
from rayzero.services.data.checking.report import DataReport
from rayzero.services.data.formats.registry import FORMATS
from rayzero.services.schema.messages import Prompt

TRIED_ON = 2
"""Prompts that a reward of the user's own is tried on: the answer of the second is a wrong one of the first."""


def check_file(
    path: str,
    format_name: str | None = None,
    *,
    held_out: str | None = None,
    sample: int = 0,
    max_rows: int | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
    own_reward: str | None = None,
    try_on: Callable[[Sequence[Prompt]], None] | None = None,
) -> DataReport:
    """Read a file, up to `max_rows` rows of it, and grade `sample` of them with their own solutions.

    `names`: its columns of `prompt` and `answer`, where they are called otherwise than usual. `own_reward`: the
    `module:function` that judges all rows. `try_on` gets the first prompts of usable rows.

    Raises:
        UsageError: the file cannot be read at all, or what its columns are cannot be told.
    """
    proposal = propose(path, format_name, names=names, own_reward=own_reward)
    inspection = inspect(proposal, path, max_rows)
    if try_on is not None and (prompts := inspection.first_prompts(TRIED_ON)):
        try_on(prompts)
    if held_out is not None:
        apart = propose(held_out, format_name or proposal.settings.format, names=names, own_reward=own_reward)
        inspection.find_held_out(inspect(apart, held_out, None))
    if sample:
        grade_references(inspection, sample, len(os.sched_getaffinity(0)))
        inspection.report.recipe = proposal.recipe_lines(inspection.report.tasks, inspection.report.packages)
    return inspection.report


def inspect(proposal: Proposal, path: str, max_rows: int | None) -> Inspection:
    """A file's rows, read once."""
    found = proposal.settings.format
    report = DataReport(
        path=path,
        kind=proposal.settings.kind,
        format=found,
        about=FORMATS[found].about if found else "",
    )
    inspection = Inspection(table=proposal.table, settings=proposal.settings, task=proposal.task, report=report)
    inspection.run(max_rows)
    report.recipe = proposal.recipe_lines(report.tasks)
    return inspection
