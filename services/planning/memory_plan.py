"""What each GPU holds, counted before anything starts: refused where it cannot fit, and helped where it can be.

A learner that does not fit recomputes its activations; one that still does not fit steps its optimizer on the host.
What the recipe sets of the two is kept. Counted are tensors; what CUDA, NCCL and fragmentation take
besides is the rule of thumb in CONTEXT_BYTES and USABLE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rayzero.services.planning.model_shape import DTYPE_BYTES, ModelShape
from rayzero.services.schema.broadcast.digest import SCRATCH_BYTES
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError

GIB = 2**30
DEFAULT_GPU_BYTES = 79 * GIB
"""An H100, where neither recipe nor machine says otherwise."""
USABLE = 0.95
"""Share of a GPU's memory that a plan may fill: the rest is lost to fragments."""
CONTEXT_BYTES = GIB + GIB // 2
"""A process's CUDA context, kernels, cuBLAS workspaces."""
GRAPH_BYTES = GIB
"""CUDA graphs of an engine that captures them, for batches of up to GRAPH_SEQS completions; more in proportion."""
GRAPH_SEQS = 512
NCCL_BYTES = GIB // 2
"""NCCL's channels in one group: a rule of thumb."""
LOGITS_BYTES = 2**30
"""learner/model/gpu_logprobs.py: fp32 logits held at a time, where the recipe names no number of rows. The generic
head, which fp32 policies take, holds less: three times 64 MiB, and 256 MiB of probabilities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuPlan:
    """One kind of GPU of the run: whose it is, and what lies on it."""

    role: str
    count: int
    parts: Mapping[str, int]
    """Bytes by what they are."""
    capacity: int
    """Bytes of the GPU."""

    @property
    def num_bytes(self) -> int:
        """All parts."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Within the usable share."""
        return self.num_bytes <= USABLE * self.capacity


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """All GPUs of a run, and what was chosen so that the learner fits."""

    gpus: tuple[GpuPlan, ...]
    host_bytes: int
    """Of the learner's host, for what is offloaded."""
    activation_checkpointing: bool
    offload_optimizer: bool

    def check(self) -> None:
        """Refuse what cannot fit.

        Raises:
            RecipeError: names the GPU, what lies on it and what would help.
        """
        for gpu in self.gpus:
            if not gpu.fits:
                parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in gpu.parts.items() if size > 0.05 * GIB)
                raise RecipeError(
                    f"{gpu.role} needs {gpu.num_bytes / GIB:.1f} GiB on each GPU, and {USABLE:.0%} of its "
                    f"{gpu.capacity / GIB:.1f} GiB can be used ({parts}): {_REMEDIES[gpu.role]}"
                )


_REMEDIES = {
    "learner": "lower learner.compute.tokens_per_microbatch, shard over more GPUs with cluster.learner_gpus, train "
    "adapters with learner.lora, or choose a smaller model",
    "engine": "lower rollout.kv_cache_bytes or rollout.max_num_seqs, or share the engine with "
    "rollout.tensor_parallel_size",
    "learner and engine": "lower rollout.kv_cache_bytes or learner.compute.tokens_per_microbatch, let the engine sleep "
    "with cluster.colocate: sleep, or give each a GPU with cluster.colocate: no",
    "reward worker": "raise reward.num_gpus_per_worker (fewer share a GPU), lower the reward model's tokens_per_batch, "
    "or choose a smaller one",
}


def plan_memory(recipe: Recipe, shape: ModelShape, gpu_bytes: int) -> MemoryPlan:
    """The plan for GPUs of `gpu_bytes` each; whether it fits is for `check` to say."""
    compute, cluster = recipe.learner.compute, recipe.cluster
    choices = [(False, False), (True, False)]
    if cluster.learner_gpus == 1:  # FSDP keeps its shards where it computes
        choices += [(True, True), (False, True)]
    wanted = [
        (checkpointing, offload)
        for checkpointing, offload in choices
        if compute.activation_checkpointing in (None, checkpointing) and compute.offload_optimizer in (None, offload)
    ]
    plans = [_plan(recipe, shape, gpu_bytes, checkpointing, offload) for checkpointing, offload in wanted]
    return next((plan for plan in plans if all(gpu.fits for gpu in plan.gpus)), plans[-1])


def with_plan(recipe: Recipe, plan: MemoryPlan) -> Recipe:
    """The recipe with what the plan has chosen filled in."""
    chosen = {
        "activation_checkpointing": plan.activation_checkpointing, "offload_optimizer": plan.offload_optimizer,
    }  # fmt: skip
    compute = recipe.learner.compute.model_copy(update=chosen)
    return recipe.model_copy(update={"learner": recipe.learner.model_copy(update={"compute": compute})})


def learner_parts(recipe: Recipe, shape: ModelShape, checkpointing: bool, offload: bool) -> dict[str, int]:
    """Bytes on each GPU of the learner, by what they are."""
    learner, ranks, dtype = recipe.learner, recipe.cluster.learner_gpus, recipe.model.dtype
    lora_rank = None if learner.lora is None else learner.lora.rank
    trained = shape.num_parameters if lora_rank is None else shape.num_adapter_parameters(lora_rank)
    tokens = min(
        learner.compute.tokens_per_microbatch, recipe.training.samples_per_update * recipe.rollout.max_model_tokens
    )
    rows = learner.compute.head_chunk_tokens
    # Rows that the recipe names: the generic head, which fp32 takes, holds three copies of them.
    logits = rows * shape.vocab_size * 4 * (1 if dtype == "bfloat16" else 3) if rows else LOGITS_BYTES
    state = 0 if offload else trained // ranks
    if dtype == "float32":
        parts = {"weights": 4 * shape.num_parameters // ranks}
    elif ranks == 1:
        parts = {"weights": 2 * shape.num_parameters, "fp32 masters": 4 * state}
    else:
        # Sharded, fp32 parameters are the masters, and a part is gathered in bf16 as it is needed, the next beside it.
        parts = {"weights": 2 * _gathered(shape, dtype), "fp32 masters": 4 * shape.num_parameters // ranks}
    parts |= {"gradients": 4 * state, "moments": 8 * state}
    if learner.kl.beta > 0:
        # With adapters the policy's own weights are the reference's, too, and a copy of the adapters is held.
        held = shape.num_parameters if lora_rank is None or learner.kl.reference is not None else trained
        parts["reference"] = held * DTYPE_BYTES[dtype if ranks == 1 else "float32"] // ranks
    activations = shape.activation_bytes(tokens, checkpointing)
    if checkpointing:
        activations += shape.activation_bytes(tokens, False) // shape.num_layers  # the layer that is recomputed
    head = shape.vocab_size * shape.hidden_size
    return parts | {
        "activations": activations,
        "logits": logits + head * (4 + DTYPE_BYTES[dtype]),
        # Shards are put together before they are copied.
        "send buffer": shape.sync_bytes(dtype, lora_rank) * (1 if ranks == 1 else 2),
        "digests": SCRATCH_BYTES,
        "NCCL": NCCL_BYTES if _over_nccl(recipe) else 0,
        "CUDA": CONTEXT_BYTES,
    }


def engine_parts(recipe: Recipe, shape: ModelShape) -> dict[str, int]:
    """Bytes on each GPU of an engine, by what they are."""
    rollout, dtype, shards = recipe.rollout, recipe.model.dtype, recipe.rollout.tensor_parallel_size
    weights = shape.weight_bytes(dtype)
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    if rollout.quantization is not None:
        weights = (shape.num_parameters - embeddings) + embeddings * DTYPE_BYTES[dtype]
    step = rollout.batched_tokens * (4 * shape.hidden_size + 2 * shape.intermediate_size // shards) * DTYPE_BYTES[dtype]
    over_nccl = _over_nccl(recipe)
    graphs = 0 if rollout.eager else GRAPH_BYTES * max(rollout.num_seqs, GRAPH_SEQS) // GRAPH_SEQS
    return {
        "weights": weights // shards,
        "keys and values": rollout.kv_cache_bytes,
        # Whole tensors come to each of the GPUs that share an engine, or are made there from adapters, and wait there
        # for the pause.
        "staging": shape.weight_bytes(dtype) if over_nccl or recipe.learner.lora is not None else 0,
        "loading": _loading(recipe, shape),
        "digests": SCRATCH_BYTES if recipe.cluster.weight_transport != "gloo" else 0,
        "NCCL": NCCL_BYTES if over_nccl else 0,
        "activations": step + 3 * rollout.num_seqs * shape.vocab_size * 4,
        "CUDA graphs": graphs,
        "CUDA": CONTEXT_BYTES,
    }


def _over_nccl(recipe: Recipe) -> bool:
    return not recipe.cluster.shares_gpu and recipe.cluster.weight_transport != "gloo"


def _loading(recipe: Recipe, shape: ModelShape) -> int:
    """What an engine needs at a sync beside the weights: it makes each layer anew and then copies it into the old one,
    so that CUDA graphs stay valid. Adapters are merged in fp32, base and sum."""
    shards, size = recipe.rollout.tensor_parallel_size, DTYPE_BYTES[recipe.model.dtype]
    table = shape.vocab_size * shape.hidden_size * size // shards
    fused = 2 * shape.hidden_size * shape.intermediate_size // shards  # gate and up, the largest inside a decoder layer
    # Quantized: the new layer as it came, in 8 bits, and in fp32 while it is scaled.
    layer = fused * (size + 1 + 4 if recipe.rollout.quantization is not None else size)
    merged = 0 if recipe.learner.lora is None else 8 * shape.hidden_size * shape.intermediate_size
    return max(table, layer, merged)


def _plan(recipe: Recipe, shape: ModelShape, gpu_bytes: int, checkpointing: bool, offload: bool) -> MemoryPlan:
    learner, engine = learner_parts(recipe, shape, checkpointing, offload), engine_parts(recipe, shape)
    cluster, rollout = recipe.cluster, recipe.rollout
    if not cluster.shares_gpu:
        roles = [("learner", cluster.learner_gpus, learner)]
        roles.append(("engine", rollout.num_workers * rollout.tensor_parallel_size, engine))
    else:
        roles = [("learner and engine", 1, _together(learner, engine, asleep=cluster.takes_turns))]
    gpus = [GpuPlan(role=role, count=count, parts=parts, capacity=gpu_bytes) for role, count, parts in roles]
    lora = recipe.learner.lora
    trained = shape.num_parameters if lora is None else shape.num_adapter_parameters(lora.rank)
    host = 16 * trained if offload else 0
    if cluster.takes_turns:
        host += engine["weights"]
    return MemoryPlan(
        gpus=tuple(gpus), host_bytes=host, activation_checkpointing=checkpointing, offload_optimizer=offload
    )


def _together(learner: Mapping[str, int], engine: Mapping[str, int], *, asleep: bool) -> dict[str, int]:
    """Both on one GPU. An engine that sleeps leaves its CUDA context and graphs behind, and the learner that waits its
    state: what each needs at work alone is counted once, the larger of the two."""
    both = {f"learner's {name}": size for name, size in learner.items()}
    both |= {f"engine's {name}": size for name, size in engine.items()}
    if asleep:
        at_work = {f"learner's {name}" for name in ("activations", "logits")}
        awake = {f"engine's {name}" for name in ("weights", "keys and values", "activations")}
        smaller = min((at_work, awake), key=lambda names: sum(both[name] for name in names))
        both = {name: 0 if name in smaller else size for name, size in both.items()}
    return both


def _gathered(shape: ModelShape, dtype: str) -> int:
    """The largest part that FSDP puts together: a layer, or what is outside the layers."""
    head = shape.vocab_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    return max(head, (shape.num_parameters - head) // shape.num_layers) * DTYPE_BYTES[dtype]
