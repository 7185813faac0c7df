"""Real engines against the learner: `python -m tests.model_engines` starts vLLM on CPU for each variant of each family
(10 s each, on quiet cores) and writes the largest gaps to tests/model_engines.json, which docs/models.md quotes.

vLLM's code for a family may pass over a key that transformers' code follows; only its own log-probabilities tell.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayzero.learner.batch.batching import pack
from rayzero.learner.batch.samples import Batch, make_batch
from rayzero.learner.model.policy import Policy
from tests.model_families import VARIANTS, build
from tests.unit.learner.kit import make_group, packed_logprobs

FILE = Path(__file__).with_suffix(".json")
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process, one import
    "VLLM_NO_USAGE_STATS": "1",
}
"""Before vLLM is imported."""


def main(kinds: Sequence[str]) -> None:
    """Measure some families, or all; keep what the file holds of the others."""
    os.environ.update(ENVIRONMENT)
    chosen = kinds or list(VARIANTS)
    found = json.loads(FILE.read_text(encoding="utf-8"))["gaps"] if kinds else {}
    with tempfile.TemporaryDirectory() as folder:
        # Before the first engine starts: vLLM patches transformers' classes, and none could be built any more.
        subjects = [
            (kind, *subject(kind, variant, Path(folder) / f"{kind}-{index}"))
            for kind in chosen
            for index, variant in enumerate(VARIANTS[kind])
        ]
        for kind in chosen:
            gaps = [_gap(model, batch, ours) for name, model, batch, ours in subjects if name == kind]
            found[kind] = float(f"{max(gaps):.1e}")
            print(kind, gaps, flush=True)
    content = {"vllm": importlib.metadata.version("vllm-cpu"), "gaps": dict(sorted(found.items()))}
    FILE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def subject(kind: str, variant: Mapping[str, Any], folder: Path) -> tuple[Path, Batch, NDArray[np.float32]]:
    """A model, sequences, and the learner's log-probabilities of their completions."""
    # Heads of 32: vLLM's attention on CPU has no smaller ones.
    model = build(kind, variant, folder, head_dim=32)
    batch = make_batch([make_group(np.random.default_rng(0), [9, 1, 20], [1, 0, 0], prompt_length=11)])
    with torch.no_grad():
        policy = Policy(model, dtype="float32")
        ours = packed_logprobs(policy, pack(batch.samples, tokens_per_microbatch=100), batch.num_tokens)
    return model, batch, ours.numpy()


def _gap(model: Path, batch: Batch, ours: NDArray[np.float32]) -> float:
    """Largest difference of a log-probability from those of a new engine, both in fp32."""
    rows = [np.concatenate([each.prompt_token_ids, each.token_ids]).tolist() for each in batch.samples]
    starts = [len(each.prompt_token_ids) for each in batch.samples]
    return float(np.abs(np.concatenate(engine_logprobs(model, rows, starts)) - ours).max())


def engine_logprobs(model: Path, rows: Sequence[list[int]], starts: Sequence[int]) -> list[NDArray[np.float64]]:
    """[T] each, of the tokens from `starts` on."""
    from vllm import LLM, SamplingParams

    engine = LLM(
        str(model), dtype="float32", skip_tokenizer_init=True, enforce_eager=True, max_model_len=46, max_num_seqs=4,
        max_num_batched_tokens=128, enable_prefix_caching=False, logprobs_mode="processed_logprobs",
    )  # fmt: skip
    sampling = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False, temperature=1.0)
    outputs = engine.generate([{"prompt_token_ids": row} for row in rows], sampling, use_tqdm=False)
    found = [
        np.array([output.prompt_logprobs[at][row[at]].logprob for at in range(start, len(row))])
        for output, row, start in zip(outputs, rows, starts, strict=True)
    ]
    del engine
    gc.collect()
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
