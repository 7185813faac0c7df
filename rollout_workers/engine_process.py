"""How an engine comes up, fast, and goes down without leaving anything behind.

Nearly all of a start is imports: vLLM's, once here and once in the engine's own process. On CPU that process is forked
from a server that imports side by side with this one, instead of being spawned after it; a second start finds the
server warm.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.util import Finalize
from typing import Any

from rayzero.rollout_workers.load_meter import LoadMeter
from rayzero.rollout_workers.quick_imports import uncollected
from rayzero.rollout_workers.watchdog import own_engines
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.temporary import own_folder

BACKEND = "rayzero"
"""Our weight-transfer backend: rollout_workers/broadcast/receiver.py registers it in the engine's processes."""

PRELOADED = ["__main__", "rayzero.rollout_workers.engine_imports"]
"""What the fork server imports ahead."""

CPU_BLOCK_TOKENS = 32
"""Prefixes are shared in whole blocks: with vLLM's 128 on CPU a short prompt would share nothing."""

QUANTIZATIONS = {"fp8": "fp8_per_tensor"}
"""Names of `rollout.quantization` that vLLM calls otherwise."""

GRAPH_SEQS = 512
"""Batches up to this size are captured in CUDA graphs by default."""

GRAPH_STEP = 16
"""Distance between the sizes of large captured batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec:
    """What is started."""

    model_path: str
    """A directory in Hugging Face format."""
    dtype: str
    """What the engine computes in: `bfloat16` or `float32`."""
    settings: RolloutSettings
    seed: int = 0
    """Of requests that bring no seed."""
    policy_version: int = 0
    """Of the weights on disk."""
    sleeps: bool = False
    """Whether it shares its GPU with the learner by turns."""
    weights_come_whole: bool = True
    """Whether each sync brings all weights, not adapters alone."""
    routing_replay: bool = False
    """Whether answers say which experts each token was sent to."""

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        return self.settings.engine_device


def launch(spec: EngineSpec, load: LoadMeter) -> Callable[[], tuple[Any, Any, dict[str, float]]]:
    """Begin to start the engine; the function returned ends it: call it from a thread, it blocks.

    Returns (from that function) the `AsyncLLM`, the tokenizer and the seconds that each part took.
    """
    own_engines()
    os.environ["VLLM_RPC_BASE_PATH"] = _own_files()
    if spec.device == "cpu":
        _warm_up_fork_server()

    def finish() -> tuple[Any, Any, dict[str, float]]:
        begun = time.monotonic()
        with uncollected():
            from transformers import AutoTokenizer
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

        imported = time.monotonic()
        tokenizer = AutoTokenizer.from_pretrained(spec.model_path)
        if spec.device == "cpu":
            _fork_engine_from_server()
        config = AsyncEngineArgs(**engine_arguments(spec)).create_engine_config()
        configured = time.monotonic()
        engine = AsyncLLM.from_vllm_config(config, stat_loggers=[_stat_logger(load)])
        seconds = {
            "imports": imported - begun,
            "config": configured - imported,
            "engine": time.monotonic() - configured,
        }
        return engine, tokenizer, seconds

    return finish


def end(engine: Any, deadline_s: float = 5.0) -> None:
    """Stop the engine's processes; those that do not stop by then are killed (vLLM does both)."""
    engine.shutdown(timeout=deadline_s)
    engine.shutdown = lambda timeout=None: None  # its destructor calls it again, when half the interpreter is gone


def close_sockets(engine: Any) -> None:
    """After `end`, on the event loop: vLLM closes its sockets there, and leaves their context to the collector."""
    engine.engine_core.resources.ctx.destroy(linger=0)


def engine_arguments(spec: EngineSpec) -> dict[str, Any]:
    """Arguments of vLLM's `AsyncEngineArgs`."""
    settings = spec.settings
    arguments: dict[str, Any] = {
        "model": spec.model_path,
        "dtype": spec.dtype,
        "seed": spec.seed,
        # Never a file of the same directory in another format, which would be `auto`'s choice for Mistral's models: the
        # learner has the tensors by these names.
        "config_format": "hf",
        "load_format": "safetensors",
        "enforce_eager": settings.eager,
        "max_model_len": settings.max_model_tokens,
        "max_num_seqs": settings.num_seqs,
        "max_num_batched_tokens": settings.batched_tokens,
        "kv_cache_memory_bytes": settings.kv_cache_bytes,
        "enable_prefix_caching": settings.prefix_caching,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "quantization": QUANTIZATIONS.get(settings.quantization or "", settings.quantization),
        "enable_sleep_mode": spec.sleeps,
        "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs",
        "skip_tokenizer_init": True,
        "weight_transfer_config": {"backend": BACKEND},
        "worker_extension_cls": "rayzero.rollout_workers.broadcast.receiver.WeightReceiver",
    }
    if spec.device == "cpu":
        arguments |= {
            "distributed_executor_backend": "uni",
            "block_size": CPU_BLOCK_TOKENS,
            # vLLM rewinds the generator of a seeded request whose prompt it has cut; a CPU generator cannot be
            # rewound, and the engine dies of it.
            "enable_chunked_prefill": False,
        }
    else:
        arguments |= {
            # Chosen here, for inside a placement group vLLM would ask Ray for workers of its own.
            "distributed_executor_backend": "mp" if settings.tensor_parallel_size > 1 else "uni",
            # With the cache's size given it only decides whether the engine starts, and beside a learner on the same
            # GPU nearly all of the memory is not free. What fits is services/planning/memory_plan.py's affair.
            "gpu_memory_utilization": 0.05,
            # Logits in fp32, the head's weights as they are: in bf16 they are rounded by up to 0.07 nats, and the
            # learner's are not.
            "hf_overrides": {"head_dtype": "float32"},
            # Of vLLM's second model runner, which it takes on GPUs by itself; on CPUs routing_capture.py does the same.
            "enable_return_routed_experts": spec.routing_replay,
        }
        if settings.num_seqs > GRAPH_SEQS and not settings.eager:
            # Full batches would be computed without a graph. Rounded up, for no smaller graph would do.
            arguments["max_cudagraph_capture_size"] = -(-settings.num_seqs // GRAPH_STEP) * GRAPH_STEP
    return arguments


@cache
def _own_files() -> str:
    """A folder for vLLM's sockets and what multiprocessing makes: the end of an engine leaves some of them behind."""
    folder = str(own_folder())
    # At the end, but after multiprocessing has removed its own from it (priority -100).
    Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-200)
    return folder


@contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Only for a while: a Ray started by this process later would find no room for its sockets' paths."""
    set_before, found_before = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = found_before
        del os.environ["TMPDIR"]
        if set_before is not None:
            os.environ["TMPDIR"] = set_before


def _warm_up_fork_server() -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with _temporary_files_in(_own_files()):
        forkserver.ensure_running()


def _fork_engine_from_server() -> None:
    """vLLM spawns its engine process afresh, which imports everything once more: give it the fork server's context."""
    from vllm.v1.engine import utils

    utils.get_mp_context = lambda: multiprocessing.get_context("forkserver")


def _stat_logger(load: LoadMeter) -> Any:
    from vllm.v1.metrics.loggers import StatLoggerBase

    class Forwarder(StatLoggerBase):  # type: ignore[misc, unused-ignore]
        """vLLM makes one for every engine core; all figures go to the one meter."""

        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            pass

        def record(
            self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
        ) -> None:
            load.record(scheduler_stats, iteration_stats)

        def log_engine_initialized(self) -> None:
            pass

    return Forwarder
