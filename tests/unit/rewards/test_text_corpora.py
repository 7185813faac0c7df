"""Every labelled case of the rewards of text and form, through `rayzero grade` with the settings it carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayzero.rewards.grading.grade import run

CORPUS = Path(__file__).parents[2] / "corpus"
KINDS = ("exact", "choice", "json_schema", "regex", "instructions", "sql")


def cases_of(kind: str) -> list[dict[str, Any]]:
    lines = (CORPUS / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
    return [{"id": number, **json.loads(line)} for number, line in enumerate(lines, 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_is_judged_as_labelled(kind: str, tmp_path: Path) -> None:
    cases = cases_of(kind)
    assert len(cases) >= 50
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(case) + "\n" for case in cases))
    assert run(kind, source, target, workers=2) == 0
    verdicts = [json.loads(line) for line in target.read_text().splitlines()]
    wrong = [
        (case, verdict) for case, verdict in zip(cases, verdicts, strict=True) if case["expected"] != verdict["status"]
    ]
    assert wrong == []
