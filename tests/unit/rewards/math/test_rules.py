"""Plain rules are the recipe's settings."""

from __future__ import annotations

from rayzero.rewards.math.rules import Rules, rules_of
from rayzero.services.schema.config.math import MathSettings


def test_defaults_are_those_of_the_recipe() -> None:
    assert rules_of(MathSettings()) == Rules() == rules_of(None)


def test_settings_become_rules() -> None:
    rules = rules_of(MathSettings(strictness="lenient", fallbacks=("hashes",), max_answer_chars=100))
    assert (rules.strictness, rules.fallbacks, rules.max_answer_chars) == ("lenient", ("hashes",), 100)


def test_one_fallback_may_stand_alone() -> None:
    for given in ({"fallback": "answer_line"}, {"fallbacks": "answer_line"}, {"fallbacks": ["answer_line"]}):
        assert rules_of(MathSettings.model_validate(given)).fallbacks == ("answer_line",)
