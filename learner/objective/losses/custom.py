"""A loss of your own, by import path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from rayzero.learner.objective.advantage import AdvantageName
from rayzero.learner.objective.losses.base import BatchShape, Loss, TokenLosses, Tokens, TokenWeights, mean_of_tokens
from rayzero.services.schema.config.function_name import FunctionName
from rayzero.services.schema.errors import RecipeError


class CustomLoss(Loss):
    """Your own function of the same tokens that the losses here get.

    Example: `{name: custom, function: my_losses:plain, arguments: {scale: 2}}` with
    `def plain(tokens, scale): return -scale * tokens.token_advantages * tokens.policy_logprobs`.
    """

    name: Literal["custom"] = "custom"
    published_advantage: ClassVar[AdvantageName] = "std_normalised"
    function: FunctionName
    """`module:function`, called with `tokens` (`Tokens` in learner/objective/losses/base.py) and `arguments`; returns
    the value of each token, [n] and differentiable, or a `TokenLosses`, which also says where a clip cut the gradient
    off. Importable where the learner runs."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments, the same in every call."""

    def token_losses(self, tokens: Tokens) -> TokenLosses:
        """What the function says.

        Raises:
            RecipeError: it cannot be imported, or does not return one value a token.
        """
        found = load_function(self.function)(tokens, **self.arguments)
        if isinstance(found, TokenLosses):
            return found
        if getattr(found, "shape", None) != tokens.policy_logprobs.shape:
            raise RecipeError(
                f"learner.loss.function: {self.function} must return one value a token, a tensor of shape "
                f"{tuple(tokens.policy_logprobs.shape)}, not {_described(found)}"
            )
        return TokenLosses(values=found, clipped=found.new_zeros(found.shape).bool())

    def token_weights(self, shape: BatchShape) -> TokenWeights:
        """Mean over all tokens of the batch, unless `learner.aggregation` says otherwise."""
        return mean_of_tokens(shape)


def load_function(name: str) -> Callable[..., Any]:
    """The function by its name.

    Raises:
        RecipeError: its module cannot be imported, or has no such function.
    """
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"learner.loss.function: {name} cannot be imported: {error}") from None
    if not callable(found):
        raise RecipeError(f"learner.loss.function: {name} is no function")
    return found  # type: ignore[no-any-return]


def _described(value: Any) -> str:
    return f"one of shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
