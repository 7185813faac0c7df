"""How answers to mathematical questions are read and compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from rayzero.services.schema.config.base import Section

Strictness = Literal["strict", "standard", "lenient"]
Fallback = Literal["hashes", "last_number", "answer_line", "answer_tags", "final_answer"]
Fallbacks = Annotated[
    tuple[Fallback, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]


class MathSettings(Section):
    """Settings of the math reward. The defaults are the policy of rewards/README.md."""

    strictness: Strictness = "standard"
    """`standard`: equality by exact value; a unit, %, °, currency sign or label (`x =`) may be omitted but not wrong.
    `strict`: as standard, but a unit, % or currency that the gold answer states must be stated too.
    `lenient`: as standard, and a decimal gold also accepts what rounds to it, a base subscript, a modulus or am/pm may
    be omitted, and a pair or list may drop its brackets (in order)."""

    fallbacks: Fallbacks = Field(default=(), validation_alias=AliasChoices("fallbacks", "fallback"))
    """Where the answer is looked for when the completion holds no box at all, in this order; one may stand alone
    (`fallback: answer_line`). `answer_line`: the last line `Answer: …`. `answer_tags`: the last
    `<answer>…</answer>`. `final_answer`: the last sentence "The final answer is …". `hashes`: what follows the last
    `####` on its line. `last_number`: the last number of the answer part. Empty: no box earns nothing."""

    relative_tolerance: float = Field(default=0.0, ge=0.0, le=0.1)
    """Accepts numbers within this fraction of the gold answer. 0: exact, unless the gold itself is marked as
    approximate (≈, "about", a decimal that ends in …), which accepts what rounds to it."""

    max_answer_chars: int = Field(default=2_000, ge=16, le=20_000)
    """Longer answers are refused unread, so that no answer costs more than it is worth."""

    worked_out: bool = False
    """Where the gold answer is a number, an answer that leaves something to calculate is wrong: `40+2`, `6*7` or `84/2`
    for 42. For tasks whose question is the calculation: a policy soon learns to copy it into the box."""
