"""The library finds what a question needs, step by step, and takes documents as data sets have them."""

from __future__ import annotations

import re

import pytest

from rayzero.rewards.environments.library import Library
from rayzero.services.data.tasks.library import searches


def test_a_question_is_answered_by_searching_for_each_name() -> None:
    for row in searches(20, num_hops=4, num_documents=60):
        library = Library()
        library.reset(**row)
        titles = {document["title"] for document in row["documents"]}
        name = next(word for word in re.findall(r"\w+", row["prompt"]) if word in titles)
        for _ in range(4):
            (line,) = [each for each in library.search(name).splitlines() if re.match(rf"\d\. {name}:", each)]
            name = re.findall(r"\w+", line)[-1]
        assert name == row["answer"]


def test_the_best_come_first_and_nothing_is_said_to_be_nothing() -> None:
    library = Library(num_results=2)
    library.reset(documents=["the cat sat", {"text": "a dog ran"}, {"title": "Cats", "text": "the cat, the cat"}])
    assert library.search("Cat!").splitlines() == ["1. Cats: the cat, the cat", "2. the cat sat"]
    assert library.search("horse") == library.search("") == "Nothing was found."
    library.reset(documents=[])
    assert library.search("cat") == "Nothing was found."
    with pytest.raises(ValueError, match="a document must be a text"):
        library.reset(documents=[{"title": "no text"}])
