"""What a recipe asks for that does nothing is said."""

from __future__ import annotations

from typing import Any

import pytest

from rayzero.services.run.notes import notes
from rayzero.services.schema.config.recipe import Recipe
from tests.fakes import make_recipe


def changed(**sections: Any) -> Recipe:
    content = make_recipe().model_dump(mode="json")
    for name, values in sections.items():
        content[name] = {**content[name], **values}
    return Recipe.model_validate(content)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({}, ["pi_theta is pi_old, every ratio of grpo is 1"]),
        ({"learner": {"minibatches": 2}}, []),
        ({"learner": {"inner_epochs": 2, "loss": {"name": "dapo"}}}, []),
        ({"learner": {"correction": {"name": "rollout_as_old"}}}, []),
        ({"learner": {"minibatches": 2, "loss": {"name": "gspo"}}}, ["sequence_truncation weighs"]),
        (
            {"learner": {"minibatches": 2, "loss": {"name": "grpo", "ratio": "sequence"}}},
            ["sequence_truncation weighs"],
        ),
        (
            {"learner": {"minibatches": 2}, "training": {"max_staleness": 1, "on_stale": "drop"}},
            ["mostly those with long completions"],
        ),
        ({"learner": {"minibatches": 2}, "evaluation": {"temperature": 0, "num_completions": 4}}, ["answer 4 times"]),
    ],
)
def test_said(sections: dict[str, Any], words: list[str]) -> None:
    found = notes(changed(**sections))
    assert len(found) == len(words)
    for note, word in zip(found, words, strict=True):
        assert word in note


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"learner": {"kl": {"beta": 0.1, "estimator": "k1"}}}, "k1 has no gradient on average"),
        ({"learner": {"kl": {"beta": 0.1, "unbiased": True, "place": "reward"}}}, "unbiased is for place: loss"),
        ({"learner": {"kl": {"refresh_every_updates": 4}}}, "refresh_every_updates is never read while beta is 0"),
        ({"learner": {"advantage": "none"}}, "advantage: none with kl.beta 0 teaches nothing"),
        ({"learner": {"advantage": "none", "kl": {"beta": 0.1, "place": "reward"}}}, "teaches nothing: set kl.place"),
        (
            {
                "learner": {"loss": {"name": "dapo", "overlong_tokens": 300}},
                "rollout": {"sampling": {"max_tokens": 200}},
            },
            r"overlong_tokens \(300\) is more than rollout.sampling.max_tokens \(200\)",
        ),
        ({"learner": {"loss": {"name": "dr_grpo", "constant_tokens": 9}, "aggregation": "token_mean"}}, "give one"),
        ({"learner": {"minibatches": 3}}, r"minibatches \(3\) deals whole groups"),
        ({"learner": {"rejection": [{"name": "token_veto"}]}}, "without an edge nothing is rejected"),
        ({"learner": {"rejection": [{"name": "token_mask", "low": 2, "high": 1}]}}, "else everything is rejected"),
    ],
)
def test_what_contradicts_itself_is_refused(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        changed(**sections)
