"""docs/models.md, made from what tiny models of each family show: `python -m tests.model_table` writes it anew."""

from __future__ import annotations

import ast
import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig

from rayzero.learner.batch.batching import pack
from rayzero.learner.batch.samples import make_batch
from rayzero.learner.model.policy import Policy
from rayzero.services.planning.model_families import FAMILIES, refusal
from rayzero.services.planning.model_shape import ModelShape, read_shape
from rayzero.services.schema.config.learner import LoraSettings
from rayzero.services.schema.errors import RecipeError
from tests.model_families import VARIANTS, build
from tests.unit.learner.kit import make_group, naive_logprobs, packed_logprobs

ENGINES = Path(__file__).with_name("model_engines.json")
PAGE = Path(__file__).parents[1] / "docs" / "models.md"
LOGPROB_GAP = 2e-5
RANK = 4

PUBLISHED: Mapping[str, str] = {
    "arcee": "AFM-4.5B",
    "cohere": "Command R",
    "cohere2": "Command R7B, Command A",
    "ernie4_5": "ERNIE 4.5 0.3B",
    "exaone4": "EXAONE 4.0",
    "gemma": "Gemma 1",
    "gemma3_text": "Gemma 3 270M, 1B",
    "glm": "GLM-4-9B (hf)",
    "glm4": "GLM-4-0414, GLM-Z1",
    "granite": "Granite 3.x dense",
    "llama": "Llama 2 and 3.x, SmolLM 1 and 2, DeepSeek-R1-Distill-Llama",
    "mistral": "Mistral 7B, Nemo, Small (text)",
    "mixtral": "Mixtral 8x7B, 8x22B",
    "olmo2": "OLMo 2",
    "olmo3": "OLMo 3",
    "phi3": "Phi-3 mini and medium, Phi-3.5 mini, Phi-4, Phi-4 mini",
    "qwen2": "Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen",
    "qwen3": "Qwen3 dense",
    "qwen3_moe": "Qwen3 MoE (30B-A3B, 235B-A22B)",
    "seed_oss": "Seed-OSS 36B",
    "smollm3": "SmolLM3",
    "starcoder2": "StarCoder2",
}
_EXPERTS, _IMAGES = "a mixture of experts", "takes images"
OTHERS: Mapping[str, tuple[str, str, str]] = {
    "gpt_oss": ("gpt-oss", "planned", _EXPERTS),
    "deepseek_v3": ("DeepSeek V3, R1", "planned", _EXPERTS),
    "glm4_moe": ("GLM-4.5", "planned", _EXPERTS),
    "qwen3_next": ("Qwen3-Next", "planned", f"{_EXPERTS}, and linear attention"),
    "qwen3_5": ("Qwen3.5", "planned", f"{_IMAGES}, and linear attention"),
    "gemma2": ("Gemma 2", "planned", "caps on attention scores and logits"),
    "gemma3": ("Gemma 3 4B and larger", "refused", _IMAGES),
    "mistral3": ("Mistral Small 3.1 and later", "refused", _IMAGES),
    "qwen2_5_vl": ("Qwen2.5-VL", "refused", _IMAGES),
    "phi": ("Phi-1, Phi-2", "refused", "a bias on the head"),
    "stablelm": ("StableLM 2", "refused", "its code does not pass attention's arguments on"),
    "gpt2": ("GPT-2", "refused", "its parts have other names"),
}
"""Families that users ask for: what they are published as, what is meant to become of them, and why."""

HEAD = """# Models that can be trained

`rayzero check` refuses what is not in the first table, before anything starts; the learner holds its own
log-probabilities against the model's code once more when it loads the weights. Engines alone (`rayzero eval`,
`rayzero generate`, rejection sampling) take whatever vLLM takes.

Made by `python -m tests.model_table` from tiny random models of every family, each in the variants in which it is
published (biases, tied heads, windows, rotary scaling); `tests/unit/test_model_table.py` fails when this page is not
what the code gives.

| column | tested means |
|---|---|
| learner exact | packed micro-batches give the log-probabilities of the model's own code, in fp32, within 2e-5 |
| engine names | what a sync sends is named as the checkpoint is, without a tied head; vLLM has the architecture |
| LoRA | every linear layer of the decoder has an adapter, and what is saved merged computes what was trained |
| plan | parameters, with and without adapters, are counted exactly from config.json alone |

| column | measured |
|---|---|
| engine's gap | largest difference of a log-probability between vLLM {vllm} on CPU and the learner, both in fp32 |

The engine's gap is measured by `python -m tests.model_engines`, not by every `make test`. Every run measures it, too:
the KL between sampler and learner at equal weights (`learner.watch`) stops one whose engines compute something else.
"""
TAIL = """
Where the last column names a window (`sliding_window`) or a rotary embedding that changes with the length (`longrope`),
`rollout.max_model_tokens` must stay within it, if the model has one at all: Mistral 7B v0.1 is trained up to 4,096
tokens, Gemma 3 1B up to 512; Mistral 7B v0.2 and v0.3 and Qwen2.5 (`use_sliding_window: false`) have no window.

In mixtures of experts `learner.lora`, `rollout.quantization` and layers without experts among others are refused
(`mlp_only_layers`, `decoder_sparse_step`). [How they are trained](algorithms.md#mixtures-of-experts).

Refused in every family: caps on attention or logits, other factors on the logits, quantized checkpoints, `dynamic`
rotary scaling, dual-chunk attention. And by family, for vLLM computes something else: biases in Cohere, ERNIE 4.5,
Gemma 1 and Qwen3, a Cohere head of its own, `use_sliding_window: true` in Qwen2 and Qwen3.

## A family more

An entry in `services/planning/model_families.py` (what its config.json leaves unsaid), its variants in
`tests/model_families.py`, a line in `tests/model_table.py`; then `python -m tests.model_engines FAMILY` and
`python -m tests.model_table`.
"""


@dataclass(frozen=True)
class Subject:
    """One tiny model, as the learner trains it whole, and with adapters that are not zero; a mixture has none."""

    directory: Path
    whole: Policy
    adapted: Policy | None

    @classmethod
    def load(cls, directory: Path) -> Subject:
        if read_shape(directory).num_experts:
            return cls(directory, Policy(directory, dtype="float32"), None)
        adapted = Policy(directory, dtype="float32", lora=LoraSettings(rank=RANK, alpha=8))
        with torch.no_grad():
            for _, adapter in adapted.named_parameters():
                adapter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(adapter.numel()))
        return cls(directory, Policy(directory, dtype="float32"), adapted)


def learner_is_exact(subject: Subject) -> bool:
    """Packed and prompt-sharing, against the model's own forward pass on one sequence at a time."""
    return _gap(subject.whole, subject.directory) < LOGPROB_GAP


def engine_names_match(subject: Subject) -> bool:
    """Names that a sync sends are those in the checkpoint, and vLLM knows the architecture."""
    model = subject.whole.model
    saved = _saved_names(subject.directory)
    if model.config.tie_word_embeddings:
        saved.discard("lm_head.weight")
    return {name for name, _ in subject.whole.sent_weights()} == saved and type(model).__name__ in architectures()


def adapters_merge(subject: Subject) -> bool:
    """Adapters on all linear layers; the merged checkpoint computes what the adapted policy does. A mixture refuses."""
    if subject.adapted is None:
        with pytest.raises(RecipeError, match="mixture of experts"):
            Policy(subject.directory, dtype="float32", lora=LoraSettings(rank=RANK, alpha=8))
        return True
    left = [
        name
        for name, module in subject.adapted.model.model.layers.named_modules()
        if isinstance(module, torch.nn.Linear) and ".lora_" not in name and not name.endswith(".base_layer")
    ]
    with tempfile.TemporaryDirectory() as merged:
        subject.adapted.save(merged)
        same_names = _saved_names(Path(merged)) == _saved_names(subject.directory)
        return not left and same_names and _gap(subject.adapted, Path(merged)) < LOGPROB_GAP


def plan_is_exact(subject: Subject) -> bool:
    """Parameters counted from config.json, adapters included; also from one that leaves the code's defaults unsaid."""
    shape, config = read_shape(subject.directory), subject.whole.model.config
    defaults = type(config)().to_dict()
    terse = {key: value for key, value in config.to_dict().items() if defaults.get(key) != value}
    sizes = {"max_position_embeddings": shape.max_positions, "num_key_value_heads": shape.num_kv_heads}
    return (
        shape.num_parameters == subject.whole.num_parameters
        and (subject.adapted is None or _adapters_counted(shape, subject.adapted))
        and ModelShape.from_config(sizes | terse | {"model_type": config.model_type}) == shape
    )


def _adapters_counted(shape: ModelShape, adapted: Policy) -> bool:
    return shape.num_parameters + shape.num_adapter_parameters(RANK) == adapted.num_parameters


CHECKS: Mapping[str, Callable[[Subject], bool]] = {
    "learner exact": learner_is_exact,
    "engine names": engine_names_match,
    "LoRA": adapters_merge,
    "plan": plan_is_exact,
}


def verdicts(kind: str, folder: Path) -> dict[str, bool]:
    """Each check on all variants of a family."""
    found = dict.fromkeys(CHECKS, True)
    for index, variant in enumerate(VARIANTS[kind]):
        subject = Subject.load(build(kind, variant, folder / f"{kind}-{index}"))
        found = {name: found[name] and check(subject) for name, check in CHECKS.items()}
    return found


def page(found: Mapping[str, Mapping[str, bool]]) -> str:
    """The whole document."""
    engines = json.loads(ENGINES.read_text(encoding="utf-8"))
    lines = ["", "## Trained", "", f"| `model_type` | published as | {' | '.join(CHECKS)} | engine's gap | within |"]
    lines.append("|---" * (len(CHECKS) + 4) + "|")
    for kind in sorted(found):
        tested = {name: "refused" if name == "LoRA" and FAMILIES[kind].experts else "tested" for name in CHECKS}
        cells = [tested[name] if found[kind][name] else "fails" for name in CHECKS]
        gap = f"{engines['gaps'][kind]:.0e}"
        lines.append(f"| `{kind}` | {PUBLISHED[kind]} | {' | '.join(cells)} | {gap} | {_limit(kind)} |")
    lines += ["", "## Not trained", "", "| `model_type` | published as | | why |", "|---|---|---|---|"]
    for kind, (name, fate, why) in OTHERS.items():
        assert refusal(AutoConfig.for_model(kind).to_dict()) is not None, f"{kind} is not refused"
        lines.append(f"| `{kind}` | {name} | {fate} | {why} |")
    return HEAD.format(vllm=engines["vllm"]) + "\n".join(lines) + "\n" + TAIL


def main() -> None:
    """Write the page."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(page({kind: verdicts(kind, Path(folder)) for kind in VARIANTS}), encoding="utf-8")


@cache
def architectures() -> set[str]:
    """Those that vLLM generates text with: the names in its registry, read and not imported, which takes seconds and
    patches torch."""
    package = importlib.util.find_spec("vllm")
    assert package is not None and package.origin is not None
    source = Path(package.origin).parent / "model_executor" / "models" / "registry.py"
    wanted = {"_TEXT_GENERATION_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS"}
    return {
        name
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in wanted
        for name in ast.literal_eval(node.value)
    }


def _saved_names(directory: Path) -> set[str]:
    with safe_open(directory / "model.safetensors", framework="pt") as file:
        return set(file.keys())


def _gap(policy: Policy, directory: Path) -> float:
    """Largest difference of a log-probability from those of the model's own code."""
    rng = np.random.default_rng(0)
    groups = [
        make_group(rng, [9, 1, 20, 0], [1, 0, 0, 1], prompt_length=11),
        make_group(rng, [5, 5], [1, 0], prompt_length=1, group_id=1),
    ]
    batch = make_batch(groups)
    with torch.no_grad():
        found = packed_logprobs(policy, pack(batch.samples, tokens_per_microbatch=40), batch.num_tokens)
        return float((found - naive_logprobs(directory, batch)).abs().max())


def _limit(kind: str) -> str:
    """What `rollout.max_model_tokens` must stay within, where a model has it; see the text below the tables."""
    family = FAMILIES[kind]
    windows = family.window is not None or any(variant.get("sliding_window") for variant in VARIANTS[kind])
    rotary = any(variant.get("rope_parameters", {}).get("rope_type") == "longrope" for variant in VARIANTS[kind])
    return ", ".join(["window"] * (windows and not family.window_is_switched) + ["longrope"] * rotary)


if __name__ == "__main__":
    main()
