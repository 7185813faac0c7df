"""What of a model's directory is refused before anything loads it: files that do not fit one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.planning.prompt_tokenizer import PromptTokenizer, read_object
from rayzero.services.schema.errors import RecipeError

NEUTRAL: dict[str, Any] = {
    "temperature": 1.0, "top_p": 1.0, "top_k": 50, "min_p": None, "typical_p": 1.0, "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}  # fmt: skip
"""Ways of sampling, and the values at which they change nothing."""


def check_generation_config(directory: Path) -> None:
    """A generation_config.json that transformers loads with a warning, and refuses to save with the model.

    Raises:
        RecipeError: names the file, its keys and the fix.
    """
    file = directory / "generation_config.json"
    config = read_object(file)
    beams, sequences = config.get("num_beams") or 1, config.get("num_return_sequences") or 1
    if config.get("do_sample") is not True:
        sampling = [key for key, value in NEUTRAL.items() if config.get(key) not in (None, value)]
        if sampling:
            raise RecipeError(
                f"model.path: {file} sets {', '.join(sampling)} without do_sample: true, and transformers saves no "
                f"model with it: add do_sample: true there, or remove {'it' if len(sampling) == 1 else 'them'}"
            )
        if sequences > 1 and beams == 1:
            raise RecipeError(
                f"model.path: {file} sets num_return_sequences {sequences} without do_sample or beams, and "
                "transformers loads no model with it: remove it there"
            )
    if beams == 1 and (config.get("early_stopping") or config.get("length_penalty") not in (None, 1.0)):
        raise RecipeError(
            f"model.path: {file} sets early_stopping or length_penalty without num_beams, and transformers saves no "
            "model with it: remove them there"
        )


def ends_texts(tokenizer: PromptTokenizer) -> bool:
    """Whether the engines know a token that ends a completion: the tokenizer's, or one that generation_config.json
    adds."""
    listed = read_object(tokenizer.directory / "generation_config.json").get("eos_token_id")
    return tokenizer.has_end or listed not in (None, [])


def check_vocabulary(tokenizer: PromptTokenizer, shape: ModelShape) -> None:
    """A token without a row in the embedding ends the learner in an IndexError, at the first prompt that holds it.

    Raises:
        RecipeError: says how many tokens and rows there are.
    """
    if tokenizer.num_tokens > shape.vocab_size:
        raise RecipeError(
            f"model.path: the tokenizer of {tokenizer.directory} has {tokenizer.num_tokens} tokens, and the model's "
            f"embedding {shape.vocab_size} (vocab_size in config.json): use the tokenizer that the model was trained "
            f"with, or enlarge the embedding (model.resize_token_embeddings({tokenizer.num_tokens})) and save it"
        )
