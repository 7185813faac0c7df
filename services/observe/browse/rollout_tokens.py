"""The text of every token of a completion, for the browser's per-token view."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rayzero.services.store.checkpoints import checkpoints_in
from rayzero.services.store.run_directory import RunDirectory


class TokenTexts:
    """Cuts a completion's text at its tokens' borders, with the run's own tokenizer where one is found."""

    def __init__(self, directory: RunDirectory, model_path: Path | None = None) -> None:
        """`model_path`: the model a live run began with; a finished one has it in its checkpoints."""
        self._places = [
            *([model_path] if model_path is not None else []),
            directory.file("model"),
            *reversed(checkpoints_in(directory.checkpoints)),
        ]

    def of(self, token_ids: Sequence[int]) -> list[str] | None:
        """One text a token, empty for a token that ends within a character; None without a tokenizer or its library.

        Joined they are the completion's text, special tokens included.
        """
        tokenizer = self._tokenizer()
        if tokenizer is None:
            return None
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=False)
        return [stream.step(tokenizer, token_id) or "" for token_id in token_ids]

    def _tokenizer(self) -> Any:
        for place in self._places:
            if (place / "tokenizer.json").is_file():
                return _load(place / "tokenizer.json")
        return None


@lru_cache(maxsize=4)
def _load(file: Path) -> Any:
    """None where the library is not installed: looked for once, not for each of 100,000 rollouts."""
    if find_spec("tokenizers") is None:
        return None
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(file))
