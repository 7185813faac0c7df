"""Questions about invented names: answerable from their documents alone, and never the same in both splits."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rayzero.services.data.tasks.library import searches
from rayzero.services.schema.errors import RecipeError


@pytest.mark.parametrize("num_hops", [1, 2, 3, 4])
def test_each_step_is_in_a_document_of_its_own(num_hops: int) -> None:
    for row in searches(20, num_hops=num_hops, num_documents=12):
        texts = {document["title"]: document["text"] for document in row["documents"]}
        assert len(texts) == len(row["documents"]) == 12
        name = next(word for word in re.findall(r"\w+", row["prompt"]) if word in texts)
        for _ in range(num_hops):
            name = re.findall(r"\w+", texts[name])[-1]
        assert name == row["answer"] and row["answer"] not in row["prompt"]


def test_the_same_every_time_and_no_name_in_both_splits() -> None:
    assert list(searches(30)) == list(searches(30))
    prompts = [{row["prompt"] for row in searches(200, split=split)} for split in ("train", "held_out")]
    assert len(prompts[0]) == 200 and not prompts[0] & prompts[1]


@pytest.mark.parametrize("arguments", [{"num_hops": 5}, {"num_hops": 0}, {"num_hops": 3, "num_documents": 2}])
def test_what_cannot_be_asked_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="searches"):
        next(searches(1, **arguments))
