"""Questions whose answers no model can know: about invented people, towns and rivers, each with a small library that
holds what is asked. For `rayzero.rewards.environments.library:Library`, where a model searches it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from rayzero.services.data.tasks.numbers import Row, Split, split_of
from rayzero.services.schema.errors import RecipeError

MAX_HOPS = 4
_SYLLABLES = ("ba", "del", "ki", "lor", "mun", "na", "os", "per", "qui", "ran", "sel", "ti", "ul", "ver", "wen", "zo")
_STEPS = (
    ("{name} was born in {next}.", "the town where {of} was born", "{name} is a town."),
    ("{name} lies on the river {next}.", "the river on which {of} lies", "{name} is a river."),
    ("The river {name} was first mapped by {next}.", "the person who first mapped {of}", "{name} was a maker of maps."),
    ("{name} was taught by {next}.", "the teacher of {of}", "{name} was a teacher."),
)
"""Of a chain that begins with a person: what a document says, how a question asks for it, what else is said of it."""


def searches(
    num_prompts: int = 1000, split: Split = "train", seed: int = 0, num_hops: int = 3, num_documents: int = 40
) -> Iterator[Row]:
    """Questions of `num_hops` steps, from 1 to 4, each of which is in another document. Columns: `prompt`, `answer`,
    `documents` (a list of {title, text}: those that are needed, among others like them).

    Raises:
        RecipeError: there are no questions of so many steps, or not so many, or no room for them in so few documents.
    """
    if not 1 <= num_hops <= MAX_HOPS:
        raise RecipeError(f"searches: num_hops is {num_hops}: from 1 to {MAX_HOPS} steps can be asked for")
    if num_documents < num_hops:
        raise RecipeError(f"searches: {num_hops} steps need as many documents, and num_documents is {num_documents}")
    rng = random.Random(f"searches {split} {seed}")
    seen: set[str] = set()
    for _ in range(100 * num_prompts):
        names = _names(rng, num_hops + 1 + num_documents)
        chain, others = names[: num_hops + 1], names[num_hops + 1 :]
        if chain[0] in seen or split_of(f"search {chain[0]}") != split:
            continue
        seen.add(chain[0])
        documents = [_document(step, chain[step], chain[step + 1]) for step in range(num_hops)]
        while len(documents) < num_documents:
            step = rng.randrange(num_hops)
            documents.append(_document(step, others[len(documents)], rng.choice(others)))
        rng.shuffle(documents)
        yield {"prompt": _question(chain[0], num_hops), "answer": chain[-1], "documents": documents}
        if len(seen) == num_prompts:
            return
    raise RecipeError(f"searches: there are not {num_prompts} such questions: ask for fewer")


def _document(step: int, name: str, following: str) -> dict[str, str]:
    said = _STEPS[step][0].format(name=name, next=following)
    also = _STEPS[step - 1][2].format(name=name) if step else f"{name} kept bees."
    return {"title": name, "text": f"{also} {said}"}


def _question(name: str, num_hops: int) -> str:
    of = name
    for _, asked, _ in _STEPS[:num_hops]:
        of = asked.format(of=of)
    return f"What is the name of {of}? Search for it. Put the name, and nothing else, in \\boxed{{}}."


def _names(rng: random.Random, number: int) -> Sequence[str]:
    """So many different ones."""
    names: dict[str, None] = {}
    while len(names) < number:
        names["".join(rng.choice(_SYLLABLES) for _ in range(4)).capitalize()] = None
    return list(names)
