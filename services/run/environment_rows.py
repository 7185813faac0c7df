"""The row that an environment is tried with: of the command line, or the first of a recipe's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayzero.services.data.prompts import load_prompts
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.episodes import EpisodeRequest
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.messages import ChatMessage, Prompt, Sampling


def first_row(recipe: Recipe) -> dict[str, Any]:
    """The first prompt that the recipe trains on, as a row.

    Raises:
        RecipeError: its data cannot be read.
    """
    train, _ = load_prompts(recipe.data, recipe.evaluation.num_prompts, recipe.reward.has_rubric)
    prompt = next(iter(train))
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return {"prompt": messages, "answer": prompt.answer, **prompt.columns}


def request_of(row: Mapping[str, Any], max_tokens: int, seed: int) -> EpisodeRequest:
    """One episode on it. `max_tokens`: of one turn.

    Raises:
        UsageError: its prompt is neither a text nor a list of messages.
    """
    columns = {name: value for name, value in row.items() if name not in ("prompt", "answer")}
    messages = _messages(row.get("prompt", ""))
    prompt = Prompt(prompt_id="tried", messages=messages, answer=row.get("answer"), columns=columns)
    sampling = Sampling(num_completions=1, max_tokens=max_tokens, seed=seed)
    return EpisodeRequest(group_id=0, index=0, prompt=prompt, sampling=sampling, environment_seed=seed)


def _messages(prompt: str | Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
    """A text is one user message."""
    if isinstance(prompt, str):
        return (ChatMessage(role="user", content=prompt),)
    try:
        return tuple(ChatMessage(role=each["role"], content=each["content"]) for each in prompt)
    except (KeyError, TypeError):
        raise UsageError("--row: prompt must be a text, or a list of {role, content}") from None
