"""A loss of your own, by import path."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from rayzero.learner.objective.advantage import AdvantageName
from rayzero.learner.objective.losses.base import BatchShape, Loss, TokenLosses, Tokens, TokenWeights, mean_of_tokens
from rayzero.services.schema.config.function_name import FunctionName
from rayzero.services.schema.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor


class CustomLoss(Loss):
    """Your own function of the same tokens that the losses here get. Completions without an advantage are among them:
    a function may pull at those, too.

    Example: `{name: custom, function: my_losses:plain, arguments: {scale: 2}}` with
    `def plain(tokens, scale): return -scale * tokens.token_advantages * tokens.policy_logprobs`.
    """

    name: Literal["custom"] = "custom"
    published_advantage: ClassVar[AdvantageName] = "std_normalised"
    rests_without_advantage: ClassVar[bool] = False
    function: FunctionName
    """`module:function`, called with `tokens` (`Tokens` in learner/objective/losses/base.py) and `arguments`; returns
    the value of each token, [n] and differentiable, or a `TokenLosses`, which also says where a clip cut the gradient
    off. Importable where the learner runs."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments, the same in every call."""

    def token_losses(self, tokens: Tokens) -> TokenLosses:
        """What the function says.

        Raises:
            RecipeError: it cannot be imported, fails, or does not return one differentiable value a token.
        """
        function = load_function(self.function, self.arguments)
        try:
            found = function(tokens, **self.arguments)
        except Exception as error:
            # Of the user's code: no other learner would fare better with it.
            frames = traceback.extract_tb(error.__traceback__)
            where = f" ({frames[-1].filename}, line {frames[-1].lineno})"
            raise RecipeError(
                f"learner.loss.function: {self.function} failed: {type(error).__name__}: {error}{where}"
            ) from error
        return self._checked(found, tokens.policy_logprobs)

    def token_weights(self, shape: BatchShape) -> TokenWeights:
        """Mean over all tokens of the batch, unless `learner.aggregation` says otherwise."""
        return mean_of_tokens(shape)

    def _checked(self, found: Any, policy: Tensor) -> TokenLosses:
        values = found.values if isinstance(found, TokenLosses) else found
        clipped = found.clipped if isinstance(found, TokenLosses) else values
        for part in (values, clipped):
            if getattr(part, "shape", None) != policy.shape:
                raise RecipeError(
                    f"learner.loss.function: {self.function} must return one value a token, a tensor of shape "
                    f"{tuple(policy.shape)}, not {_described(part)}"
                )
        if policy.requires_grad and not values.requires_grad:
            raise RecipeError(
                f"learner.loss.function: {self.function} must return values that depend on tokens.policy_logprobs: "
                "these have no gradient, and nothing would be learnt from them"
            )
        if isinstance(found, TokenLosses):
            return found
        return TokenLosses(values=values, clipped=values.new_zeros(policy.shape).bool())


def load_function(name: str, arguments: Mapping[str, Any]) -> Callable[..., Any]:
    """The function by its name, to be called with tokens and these arguments.

    Raises:
        RecipeError: its module cannot be imported, has no such function, or it does not take the arguments.
    """
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:
        said = error if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise RecipeError(f"learner.loss.function: {name} cannot be imported: {said}") from None
    if not callable(found):
        raise RecipeError(f"learner.loss.function: {name} is no function")
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # it has none to look at
        pass
    else:
        check_arguments(name, signature, arguments)
    return found  # type: ignore[no-any-return]


def check_arguments(name: str, signature: inspect.Signature, arguments: Mapping[str, Any]) -> None:
    """Whether a function of this name and signature takes tokens and these arguments.

    Raises:
        RecipeError: it does not; names its parameters.
    """
    try:
        signature.bind(None, **arguments)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "nothing"
        raise RecipeError(f"learner.loss.arguments do not fit {name}: {error}; its parameters: {takes}") from None


def _described(value: Any) -> str:
    return f"one of shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
