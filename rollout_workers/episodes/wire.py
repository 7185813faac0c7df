"""What the endpoint's requests have in common: refusals that name a field, and sampling that the recipe decides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Refusal(Exception):
    """A request that goes no further, in the form that OpenAI's clients read."""

    def __init__(self, status: int, message: str, *, field: str | None = None, code: str | None = None) -> None:
        """`field`: of the request's body, which is at fault. `code`: for programs."""
        super().__init__(message)
        self.status, self.field, self.code = status, field, code

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI answers."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.field, "code": self.code}}


@dataclass(frozen=True, slots=True)
class FixedSampling:
    """How the recipe samples: a request may repeat it, and lower `max_tokens`."""

    temperature: float
    stop_token_ids: frozenset[int] = frozenset()

    def check(self, name: str, value: Any, field: str) -> bool:
        """Whether `name` is a parameter of sampling; it has the value that it has anyway.

        Raises:
            Refusal: it has another one.
        """
        allowed = {"temperature": (self.temperature,), **_NEUTRAL}.get(name)
        if allowed is None:
            return False
        if value is not None and not any(_equals(value, each) for each in allowed):
            wanted = " or ".join(json.dumps(each) for each in allowed) or "left out"
            raise Refusal(
                400,
                f"{field} is the recipe's to choose, for it changes what is sampled and trained on: leave it out"
                + (f", or say {wanted}" if allowed else ""),
                field=field,
            )
        return True


_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "typical_p": (1,),
    "n": (1,),
    "best_of": (1,),
    "seed": (),
    "stop": ([], ""),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "logit_bias": ({},),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "use_beam_search": (False,),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "logits_processors": ([],),
    "truncate_prompt_tokens": (),
}
"""Parameters of sampling, each with the values that change nothing."""


def read_body(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Refusal: it is none.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the request's body is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise Refusal(400, "the request's body must be a JSON object")
    return given


def read_count(value: Any, field: str) -> int | None:
    """A number of tokens, if one is given.

    Raises:
        Refusal: it is no positive integer.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Refusal(400, f"{field} must be a positive integer", field=field)
    return value


def _equals(value: Any, other: Any) -> bool:
    """A flag is no number, and 1 is 1.0."""
    if isinstance(value, bool) != isinstance(other, bool):
        return False
    return bool(value == other)
