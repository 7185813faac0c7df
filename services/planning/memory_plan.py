"""What each GPU holds, counted before anything starts: refused where it cannot fit, and helped where it can be.

A learner that does not fit recomputes its activations; one that still does not fit steps its optimizer on the host.
What the recipe sets of the two is kept. Counted are tensors; what CUDA, NCCL and fragmentation take
besides is the rule of thumb in CONTEXT_BYTES and USABLE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from rayzero.services.planning.model_shape import DTYPE_BYTES, ModelShape
from rayzero.services.schema.broadcast.digest import SCRATCH_BYTES
from rayzero.services.schema.broadcast.wire import BUCKET_BYTES, DELTA_SHARE, NUM_ROOMS
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
    weight_loading: Literal["auto", "staged", "streamed"] = "auto"
    """`rollout.weight_loading`, chosen where the recipe leaves it open and one GPU holds an engine."""
    longest_sequence: int | None = None
    """Tokens of the longest sequence that the learner has room for, one to a micro-batch: it is computed on one GPU,
    whole. None: nothing is learnt on GPUs."""

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
    plans = [
        _plan(_loading_weights(recipe, loading), shape, gpu_bytes, checkpointing, offload)
        for loading in _loadings(recipe)
        for checkpointing, offload in wanted
    ]
    chosen = next((plan for plan in plans if all(gpu.fits for gpu in plan.gpus)), plans[-1])
    return replace(chosen, longest_sequence=_longest_sequence(recipe, shape, gpu_bytes, chosen))


def _loadings(recipe: Recipe) -> tuple[Literal["auto", "staged", "streamed"], ...]:
    """How engines may take new weights in, the best first."""
    rollout = recipe.rollout
    is_open = rollout.weight_loading == "auto" and rollout.tensor_parallel_size == 1 and recipe.learner.lora is None
    return ("staged", "streamed") if is_open else (rollout.weight_loading,)


def _loading_weights(recipe: Recipe, loading: str) -> Recipe:
    return recipe.model_copy(update={"rollout": recipe.rollout.model_copy(update={"weight_loading": loading})})


def _longest_sequence(recipe: Recipe, shape: ModelShape, gpu_bytes: int, plan: MemoryPlan) -> int:
    """By halving: what a micro-batch takes grows with its tokens."""
    recipe = _loading_weights(recipe, plan.weight_loading)

    def fits(tokens: int) -> bool:
        gpus = _plan(recipe, shape, gpu_bytes, plan.activation_checkpointing, plan.offload_optimizer, tokens).gpus
        return all(gpu.fits for gpu in gpus if "learner" in gpu.role)

    low, high = 0, shape.max_positions
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def with_plan(recipe: Recipe, plan: MemoryPlan) -> Recipe:
    """The recipe with what the plan has chosen filled in."""
    chosen = {
        "activation_checkpointing": plan.activation_checkpointing, "offload_optimizer": plan.offload_optimizer,
    }  # fmt: skip
    compute = recipe.learner.compute.model_copy(update=chosen)
    recipe = _loading_weights(recipe, plan.weight_loading)
    return recipe.model_copy(update={"learner": recipe.learner.model_copy(update={"compute": compute})})


def learner_parts(
    recipe: Recipe, shape: ModelShape, checkpointing: bool, offload: bool, num_tokens: int | None = None
) -> dict[str, int]:
    """Bytes on each GPU of the learner, by what they are; with micro-batches of `num_tokens`, where they are given."""
    learner, ranks, dtype = recipe.learner, recipe.cluster.learner_gpus, recipe.model.dtype
    lora_rank = None if learner.lora is None else learner.lora.rank
    trained = shape.num_parameters if lora_rank is None else shape.num_adapter_parameters(lora_rank)
    sharded = shape.num_sharded(ranks)
    longest = recipe.rollout.max_model_tokens  # a sequence is never cut: a longer one is a micro-batch by itself
    budget = max(learner.compute.tokens_per_microbatch, longest)
    tokens = num_tokens or min(budget, recipe.training.samples_per_update * longest)
    rows = learner.compute.head_chunk_tokens
    # Rows that the recipe names: the generic head, which fp32 takes, holds three copies of them.
    logits = rows * shape.vocab_size * 4 * (1 if dtype == "bfloat16" else 3) if rows else LOGITS_BYTES
    state = 0 if offload else sharded if lora_rank is None else trained // ranks
    if dtype == "float32":
        parts = {"weights": 4 * sharded}
    elif ranks == 1:
        parts = {"weights": 2 * shape.num_parameters, "fp32 masters": 4 * state}
    else:
        # Sharded, fp32 parameters are the masters, and a part is gathered in bf16 as it is needed, the next beside it.
        parts = {"weights": 2 * _gathered(shape, dtype), "fp32 masters": 4 * sharded}
    if ranks > 1:
        # A part's gradient before it is dealt out: as it was computed, and in fp32, in which it is summed.
        parts["gradients on their way"] = _gathered(shape, dtype) + _gathered(shape, "float32")
    parts |= {"gradients": 4 * state, "moments": 8 * state}
    if learner.kl.beta > 0:
        # With adapters the policy's own weights are the reference's, too, and a copy of the adapters is held.
        held = sharded if lora_rank is None or learner.kl.reference is not None else trained // ranks
        parts["reference"] = held * DTYPE_BYTES[dtype if ranks == 1 else "float32"]
    activations = shape.activation_bytes(tokens, checkpointing)
    if checkpointing:
        activations += shape.activation_bytes(tokens, False) // shape.num_layers  # the layer that is recomputed
    head = shape.vocab_size * shape.hidden_size
    return parts | {
        "activations": activations,
        "logits": logits + head * (4 + DTYPE_BYTES[dtype]),
        "send buffer": _send_buffer(recipe, shape),
        "delta": _delta(recipe, shape),
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
    width = 4 * shape.hidden_size + 2 * shape.intermediate_size // shards
    # Each token once for each expert that it is sent to: gate, up and their product, and what comes out.
    width += shape.experts_per_token * (shape.hidden_size + 3 * shape.intermediate_size // shards)
    step = rollout.batched_tokens * width * DTYPE_BYTES[dtype]
    over_nccl = _over_nccl(recipe)
    graphs = 0 if rollout.eager else GRAPH_BYTES * max(rollout.num_seqs, GRAPH_SEQS) // GRAPH_SEQS
    return {
        "weights": weights // shards,
        "keys and values": rollout.kv_cache_bytes,
        "staging": _staging(recipe, shape),
        "loading": _loading(recipe, shape),
        "delta": _delta(recipe, shape),
        "digests": SCRATCH_BYTES if recipe.cluster.weight_transport != "gloo" else 0,
        "NCCL": NCCL_BYTES if over_nccl else 0,
        "activations": step + 3 * rollout.num_seqs * shape.vocab_size * 4,
        "CUDA graphs": graphs,
        "CUDA": CONTEXT_BYTES,
    }


def _over_nccl(recipe: Recipe) -> bool:
    """By CUDA IPC go the weights of one engine's GPU at most, the one that rank 0 is on."""
    alone = recipe.cluster.shares_gpu and recipe.cluster.learner_gpus == 1
    return not alone and recipe.cluster.weight_transport != "gloo"


def _send_buffer(recipe: Recipe, shape: ModelShape) -> int:
    """Of rank 0. Streamed: two buckets, and a parameter that was put together beside them."""
    dtype, lora = recipe.model.dtype, recipe.learner.lora
    whole = shape.sync_bytes(dtype, None if lora is None else lora.rank)
    if recipe.cluster.learner_gpus == 1 and not recipe.rollout.loads_in_pause:
        return whole
    together = 0 if recipe.cluster.learner_gpus == 1 else shape.largest_parameter * DTYPE_BYTES[dtype]
    return min(whole, _rooms(recipe, shape)) + min(whole, together)


def _staging(recipe: Recipe, shape: ModelShape) -> int:
    """Of each GPU of an engine: whole tensors come there, or are made there from adapters, and wait for the pause."""
    whole = shape.weight_bytes(recipe.model.dtype)
    if recipe.learner.lora is not None:
        return whole
    if not _over_nccl(recipe):
        return 0 if recipe.rollout.loads_in_pause or recipe.cluster.learner_gpus == 1 else whole
    if recipe.rollout.loads_in_pause:
        return min(whole, _rooms(recipe, shape))
    return whole + (0 if recipe.cluster.learner_gpus == 1 else min(whole, _rooms(recipe, shape)))


def _delta(recipe: Recipe, shape: ModelShape) -> int:
    """At most, at each end; a larger one is not sent."""
    return shape.weight_bytes(recipe.model.dtype) // DELTA_SHARE if recipe.cluster.delta_sync else 0


def _rooms(recipe: Recipe, shape: ModelShape) -> int:
    """Two buckets of a streamed broadcast; the largest tensor has one by itself."""
    return NUM_ROOMS * max(BUCKET_BYTES["cuda"], shape.largest_tensor * DTYPE_BYTES[recipe.model.dtype])


def _loading(recipe: Recipe, shape: ModelShape) -> int:
    """What an engine needs at a sync beside the weights: it makes each layer anew and then copies it into the old one,
    so that CUDA graphs stay valid. Adapters are merged in fp32, base and sum."""
    shards, size = recipe.rollout.tensor_parallel_size, DTYPE_BYTES[recipe.model.dtype]
    table = shape.vocab_size * shape.hidden_size * size // shards
    # Gate and up, the largest inside a decoder layer; or all experts, which are one layer of vLLM's.
    largest = shape.num_layer_experts if shape.num_experts else 2 * shape.hidden_size * shape.intermediate_size
    fused = largest // shards
    # Quantized: the new layer as it came, in 8 bits, and in fp32 while it is scaled.
    layer = fused * (size + 1 + 4 if recipe.rollout.quantization is not None else size)
    merged = 0 if recipe.learner.lora is None else 8 * shape.hidden_size * shape.intermediate_size
    # Streamed: what vLLM keeps of a layer of which a part is still to come outlives its bucket, as whole tensors.
    waiting = largest * size if recipe.rollout.loads_in_pause else 0
    return max(table, layer, merged) + waiting


def _plan(
    recipe: Recipe, shape: ModelShape, gpu_bytes: int, checkpointing: bool, offload: bool, num_tokens: int | None = None
) -> MemoryPlan:
    learner, engine = learner_parts(recipe, shape, checkpointing, offload, num_tokens), engine_parts(recipe, shape)
    cluster, rollout = recipe.cluster, recipe.rollout
    if not cluster.shares_gpu:
        roles = [("learner", cluster.learner_gpus, learner)]
        roles.append(("engine", rollout.num_workers * rollout.tensor_parallel_size, engine))
    else:
        both = _together(learner, engine, asleep=cluster.takes_turns)
        roles = [("learner and engine", cluster.learner_gpus, both)]
    gpus = [GpuPlan(role=role, count=count, parts=parts, capacity=gpu_bytes) for role, count, parts in roles]
    lora = recipe.learner.lora
    trained = shape.num_parameters if lora is None else shape.num_adapter_parameters(lora.rank)
    host = 16 * trained if offload else 0
    if cluster.takes_turns and lora is not None:
        host += engine["weights"]  # else they are discarded: the next ones come whole
    return MemoryPlan(
        gpus=tuple(gpus),
        host_bytes=host,
        activation_checkpointing=checkpointing,
        offload_optimizer=offload,
        weight_loading=rollout.weight_loading,
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
    """The largest part that FSDP puts together: a layer, the embedding, or the head."""
    table = shape.vocab_size * shape.hidden_size
    layers = shape.num_parameters - table * (1 if shape.tied_embeddings else 2)
    return max(table, layers // shape.num_layers) * DTYPE_BYTES[dtype]
