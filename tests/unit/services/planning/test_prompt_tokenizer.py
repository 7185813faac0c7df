"""The light tokenizer gives what transformers gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.planning.prompt_tokenizer import open_tokenizer
from rayzero.services.schema.errors import RecipeError
from tests.models import character_tokenizer

TEMPLATE = """{{ bos_token or '' }}{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}{{ 'S: be kind' }}{% endif %}
    {%- if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}
        {%- continue %}{% endif %}
[{{ message | tojson }}]
{% endfor %}
{% if add_generation_prompt %}A: {% endif %}{% if tools is not none %}T{% endif %}
"""


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_it_renders_and_counts_as_transformers_does(tmp_path: Path, template: str | None) -> None:
    tokenizer = character_tokenizer()
    if template is not None:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    light = open_tokenizer(tmp_path)
    assert light is not None and light.num_tokens == len(tokenizer)
    turns = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "é"},
    ]
    expected = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert light.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == expected
    for special in (True, False):
        assert light.encode(expected, add_special_tokens=special) == tokenizer.encode(
            expected, add_special_tokens=special
        )


def test_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    assert open_tokenizer(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(RecipeError, match=r"tokenizer.json cannot be read"):
        open_tokenizer(tmp_path)
