"""Gold answers with one thing changed are not equal to themselves, unless they mean the same."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from rayzero.rewards.math.verify import verify_answer
from tests.corpus.mutants import mutants
from tests.unit.rewards.math.test_corpus import CASES
from tests.unit.rewards.math.test_data_corpus import CASES as DATA_CASES

NUM_GOLDS = 350
MUTANTS_OF_ONE = 2


def means_the_same(mutant: str, gold: str) -> bool:
    """Changes that change no meaning: a sign before ± or 0, a % or ° that is omitted, the bracket of a choice, the
    index of a free constant."""
    bare = [re.sub(r"\\%|\^\\circ|[%°]", "", text) for text in (mutant, gold)]
    if bare[0] == bare[1]:
        return True
    unsigned = [re.sub(r"^[-+](?= *(?:\\pm|±|0(?![\d.])|x *(?:\\neq?|\\ne|≠)))", "", text) for text in bare]
    if unsigned[0] == unsigned[1]:
        return True
    choice = [re.sub(r"[(\[]([A-J])[)\]]", r"\1", text) for text in bare]
    constants = [re.sub(r"(?<=C_)\d", "", text) for text in choice]
    return constants[0] == constants[1] or {mutant, gold} == {"|2-4i|", "|2+4i|"}


def sampled() -> Iterator[tuple[str, str]]:
    golds = [case.gold for case in CASES if "####" not in case.gold]
    golds += [case["gold"] for case in DATA_CASES if case["expected"] != "error"]
    golds = list(dict.fromkeys(golds))
    choose = random.Random(17)
    for gold in choose.sample(golds, NUM_GOLDS):
        found = [mutant for mutant in mutants(gold) if mutant.strip() and mutant != gold]
        for mutant in choose.sample(found, min(MUTANTS_OF_ONE, len(found))):
            yield mutant, gold


def test_a_changed_gold_answer_is_wrong() -> None:
    equal = [pair for pair in sampled() if verify_answer(*pair).correct and not means_the_same(*pair)]
    assert equal == []
