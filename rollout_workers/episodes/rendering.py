"""A conversation's messages as tokens, whole or as what is new, with one model's tokenizer and template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rayzero.rollout_workers.episodes.suffix import suffix_text
from rayzero.rollout_workers.templates import TEMPLATES, ChatTokenizer, Tools, encode, encode_rest
from rayzero.services.schema.errors import PromptRefused, RecipeError
from rayzero.services.schema.messages import ChatMessage


class DialogueTokenizer(ChatTokenizer, Protocol):
    """What is needed of a Hugging Face tokenizer."""

    def decode(self, token_ids: Any) -> Any:
        """Token ids to text, the special ones included."""
        ...


class DialogueRenderer:
    """Made once an engine."""

    def __init__(self, tokenizer: DialogueTokenizer, template: str, stop_texts: Sequence[str]) -> None:
        """`template`: the recipe's `rollout.prompt_template`. `stop_texts`: of the tokens that end a turn."""
        self._tokenizer, self._template, self._stop_texts = tokenizer, template, tuple(stop_texts)

    def whole(
        self, messages: Sequence[ChatMessage], tools: Tools, prompt_text: str, prompt: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """[T] a conversation from its first token on. Where its text begins with the prompt's, so do its tokens.

        Raises:
            PromptRefused: the template cannot render these messages, or the tokenizer the text.
        """
        try:
            text = TEMPLATES[self._template](messages, self._tokenizer, tools)
            if text.startswith(prompt_text):
                return np.concatenate([prompt, encode_rest(text[len(prompt_text) :], self._tokenizer)])
            return encode(text, self._template, self._tokenizer)
        except RecipeError:
            raise
        except Exception as error:
            raise refused(messages, error) from None

    def suffix(self, new: Sequence[ChatMessage], last: ChatMessage, tools: Tools) -> NDArray[np.int32] | None:
        """[T] what new messages add after the turn `last`; None: they are no suffix in this template.

        Raises:
            PromptRefused: the tokenizer cannot encode their text.
        """
        if self._template == "chat":
            text = suffix_text(new, last, self._tokenizer, tools, self._stop_texts)
        else:
            text = "".join(message.content for message in new)
        try:
            return None if text is None else encode_rest(text, self._tokenizer)
        except Exception as error:
            raise refused(new, error) from None

    def reads_alike(self, known: NDArray[np.int32], given: NDArray[np.int32]) -> bool:
        """Whether tokens that differ are the same text, as far as the known ones go."""
        return str(self._tokenizer.decode(given)).startswith(str(self._tokenizer.decode(known)))


def refused(messages: Sequence[ChatMessage], error: Exception) -> PromptRefused:
    """What a template or a tokenizer could not take."""
    roles = ", ".join(message.role for message in messages)
    return PromptRefused(f"the conversation (roles: {roles}) cannot be rendered for the model: {error}")
