"""A model's tokenizer and chat template, read from its directory in a fraction of a second: without transformers, which
takes seconds to import. For what is looked at before a run starts; the engines use transformers' own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rayzero.services.schema.errors import RecipeError

SPECIAL = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class PromptTokenizer:
    """The `ChatTokenizer` of rollout_workers/templates.py."""

    def __init__(self, directory: Path) -> None:
        """Read tokenizer.json. Raises RecipeError when it is broken."""
        from tokenizers import Tokenizer

        self.directory = directory
        try:
            self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exceptions
            raise RecipeError(f"model.path: {directory / 'tokenizer.json'} cannot be read: {error}") from None
        self._config = read_object(directory / "tokenizer_config.json")
        self.chat_template = _chat_template(directory, self._config)

    @property
    def num_tokens(self) -> int:
        """One more than the largest token id."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def has_end(self) -> bool:
        """Whether it names a token that ends a text."""
        return bool(self._named.get("eos_token"))

    def apply_chat_template(
        self, conversation: Any, *, tools: Any = None, tokenize: bool, add_generation_prompt: bool, **arguments: Any
    ) -> str:
        """The conversation as text, by the model's own template, which reads `arguments`."""
        given = {"messages": conversation, "tools": tools, "documents": None, **self._named, **arguments}
        text: str = self._compiled.render(given, add_generation_prompt=add_generation_prompt)
        return text

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Text to token ids."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    @property
    def _named(self) -> dict[str, str]:
        found = {f"{name}_token": self._config.get(f"{name}_token") for name in SPECIAL}
        return {
            name: value["content"] if isinstance(value, Mapping) else value
            for name, value in found.items()
            if value is not None
        }

    @cached_property
    def _compiled(self) -> Any:
        """With what transformers gives a template."""
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise jinja2.exceptions.TemplateError(message)

        def as_json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
            return json.dumps(value, ensure_ascii=ensure_ascii, **how)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = as_json
        environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
        # Marks what the assistant says, for those who train on conversations.
        template = self.chat_template.replace("{%- generation", "{%- if true").replace("{% generation", "{% if true")
        template = template.replace("{%- endgeneration", "{%- endif").replace("{% endgeneration", "{% endif")
        try:
            return environment.from_string(template)
        except jinja2.exceptions.TemplateSyntaxError as error:
            raise RecipeError(f"model.path: the chat template of {self.directory} is broken: {error}") from None


def open_tokenizer(directory: Path) -> PromptTokenizer | None:
    """None where the model has no tokenizer.json, or this installation not what reads one."""
    is_there = (directory / "tokenizer.json").is_file() and find_spec("tokenizers") and find_spec("jinja2")
    return PromptTokenizer(directory) if is_there else None


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object; empty where there is none.

    Raises:
        RecipeError: it is not JSON, or something else.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"model.path: {file} cannot be read: {error}; copy it again") from None
    if not isinstance(content, dict):
        raise RecipeError(f"model.path: {file} must hold a JSON object, not a {type(content).__name__}")
    return content


def _chat_template(directory: Path, config: Mapping[str, Any]) -> str:
    file = directory / "chat_template.jinja"
    given: Any = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if isinstance(given, list):  # several by name
        given = {each["name"]: each["template"] for each in given}.get("default")
    return str(given or "")
