"""Instruction following: what a prompt asks of the form of its answer, checked by rules (instruction_rules.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rayzero.rewards.answer_part import answer_part
from rayzero.rewards.base import Case, PureReward, Score, failed, scored
from rayzero.rewards.kinds.instruction_rules import BadInstructionError, follows
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.reward_components import InstructionsComponent


class InstructionsReward(PureReward):
    """1 where every instruction is followed, else 0; or the share that is."""

    def __init__(self, settings: InstructionsComponent) -> None:
        self.settings = settings

    def judge(self, case: Case) -> Score:
        """The reason names the instructions that were not followed."""
        column = self.settings.instructions_column
        try:
            wanted = instructions_of(case.prompt.columns.get(column) if column else case.prompt.answer)
            part = answer_part(case.text, prefilled=case.prefilled)
            broken = [name for name, arguments in wanted if not follows((part or "").strip(), name, arguments)]
        except BadInstructionError as error:
            return failed(ErrorCause.BAD_PROMPT, f"{case.prompt.prompt_id}: {error}")
        if part is None:
            return scored(0.0, reason="the thought never ends: no </think>")
        share = 1.0 - len(broken) / len(wanted)
        reason = f"not followed: {', '.join(broken)}" if broken else f"all {len(wanted)} followed"
        return scored(share if self.settings.partial else float(not broken), reason=reason)


def instructions_of(given: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Names and arguments, from a list of `{id, …}`, IFEval's `{instruction_id_list, kwargs}` or JSON text of either.

    Raises BadInstructionError.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise BadInstructionError(f"the instructions are no JSON: {error}") from None
    if isinstance(given, Mapping) and "instruction_id_list" in given:
        names, all_arguments = given["instruction_id_list"], given.get("kwargs") or []
        if not isinstance(names, list) or not isinstance(all_arguments, list) or len(names) != len(all_arguments):
            raise BadInstructionError("instruction_id_list and kwargs must be lists of one length")
        given = [{"id": name, **(arguments or {})} for name, arguments in zip(names, all_arguments, strict=True)]
    if isinstance(given, Mapping):
        given = [given]
    if not isinstance(given, list | tuple) or not given:
        raise BadInstructionError("the instructions must be a list of {id, …} objects")
    found: list[tuple[str, Mapping[str, Any]]] = []
    for each in given:
        if not isinstance(each, Mapping) or not isinstance(each.get("id"), str):
            raise BadInstructionError("each instruction must be an object with an `id`")
        rest = {name: value for name, value in {**each, **(each.get("kwargs") or {})}.items() if value is not None}
        found.append((each["id"], {name: value for name, value in rest.items() if name not in ("id", "kwargs")}))
    return found
