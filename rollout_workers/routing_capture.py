"""Which experts an engine's tokens were sent to, captured in its process where vLLM does not return it: on CPUs.

vLLM returns it under its second model runner alone, which needs a GPU. Here each router hands over what it chose
(`set_capture_fn`, vLLM's own hook), and after each forward pass its rows are dealt to the requests that were computed:

    routers ─► rows [N, L, K] of one step ─► each row to its slot of the KV cache, and to its request

The slots are what makes it whole: of a prefix that a request finds in the cache no router sees a token, and its rows
are those of the slots where the keys and values lie that it goes on from.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT_S = 60.0
"""A finished request is kept so long after its last token for one who has not said yet that he waits for it."""
Plain = tuple[bytes, tuple[int, ...], str]
"""An array as vLLM's wire carries it: its bytes, shape and dtype."""


@dataclass(frozen=True, slots=True)
class ComputedSpan:
    """Tokens [start, start + length) of a request, computed in one step."""

    request_id: str
    start: int
    length: int
    blocks: Sequence[int]
    """The blocks of the KV cache that hold the request's tokens, from its first one on."""


@dataclass(slots=True)
class _Record:
    rows: list[NDArray[Any]] = field(default_factory=list)
    length: int = 0
    is_whole: bool = True
    """False: a token's rows were missing, and nothing that follows is recorded."""
    touched: float = 0.0

    def add(self, rows: NDArray[Any]) -> None:
        self.rows.append(rows)
        self.length += len(rows)


class RoutingRecord:
    """Rows [L, K] by slot of the KV cache, and by request in the order of its tokens."""

    def __init__(self, num_slots: int, block_size: int, shape: tuple[int, int], num_experts: int) -> None:
        """`shape`: (L, K) of one token."""
        self.dtype = np.uint8 if num_experts <= 256 else np.uint16
        self.shape = shape
        self._block_size = block_size
        # The system gives memory to slots that are written alone.
        self._slots = np.zeros((num_slots, *shape), self.dtype)
        self._positions = np.full(num_slots, -1, np.int32)
        """Of the token whose rows a slot holds."""
        self._requests: dict[str, _Record] = {}

    def note(self, spans: Iterable[ComputedSpan], rows: NDArray[Any]) -> None:
        """Take one step in: [N, L, K] `rows` of all spans, one behind the other."""
        spans, at = list(spans), 0
        for span in spans:
            slots, positions = self._places(span.blocks, span.start, span.start + span.length)
            self._slots[slots] = rows[at : at + span.length]
            self._positions[slots] = positions
            at += span.length
        # Only then: of two requests that begin in one step, the second may go on from blocks that the first fills.
        at = 0
        for span in spans:
            self._follow(span, rows[at : at + span.length])
            at += span.length

    def take(self, request_ids: Sequence[str], live: Collection[str], awaited: Collection[str]) -> list[NDArray[Any]]:
        """[R, L, K] of each request, which are then forgotten; and so are those that have ended, neither `live` nor
        `awaited`, for a while."""
        taken = [self._requests.pop(request_id, _Record()) for request_id in request_ids]
        now = time.monotonic()
        for request_id, record in list(self._requests.items()):
            if now - record.touched > KEPT_S and request_id not in live and request_id not in awaited:
                del self._requests[request_id]
        nothing = np.zeros((0, *self.shape), self.dtype)
        return [np.concatenate([nothing, *record.rows]) for record in taken]

    def _follow(self, span: ComputedSpan, rows: NDArray[Any]) -> None:
        record = self._requests.setdefault(span.request_id, _Record())
        record.touched = time.monotonic()
        if span.start > record.length and record.is_whole:
            record.is_whole = self._fill(record, span)
        # What a request was pushed out of the cache for is computed twice: what was sampled from the first time stands.
        known = record.length - span.start
        if record.is_whole and known < span.length:
            record.add(rows[known:].astype(self.dtype))

    def _fill(self, record: _Record, span: ComputedSpan) -> bool:
        """Rows of a prefix that was found in the cache, up to where the span begins; whether all were there."""
        slots, positions = self._places(span.blocks, record.length, span.start)
        if not np.array_equal(self._positions[slots], positions):
            return False
        record.add(self._slots[slots])
        return True

    def _places(self, blocks: Sequence[int], start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Slots and positions of tokens [start, end)."""
        positions = np.arange(start, end)
        held = np.asarray(blocks[: -(-end // self._block_size)], np.int64)
        return held[positions // self._block_size] * self._block_size + positions % self._block_size, positions


class RoutingCapture:
    """Reads the routers of vLLM's first model runner, step by step."""

    def __init__(self, runner: Any) -> None:
        """Raises ValueError where the model's routers or its cache are others than this reads."""
        from vllm.model_executor.layers.fused_moe.layer import MoERunner
        from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter

        config, groups = runner.model_config, runner.kv_cache_config.kv_cache_groups
        if len(groups) != 1:
            raise ValueError(f"the model keeps keys and values in {len(groups)} ways: its routing is not captured")
        shape = (config.get_total_num_hidden_layers(), config.get_num_experts_per_tok())
        block_size = groups[0].kv_cache_spec.block_size
        num_slots = runner.kv_cache_config.num_blocks * block_size
        self.record = RoutingRecord(num_slots, block_size, shape, config.get_num_experts())
        self._runner = runner
        self._step: dict[int, NDArray[Any]] = {}
        self._layers: list[int] = []
        model = runner.get_model()
        for module in model.modules():
            if isinstance(module, MoERunner):
                if module._quant_method.is_monolithic or not isinstance(module.router, BaseRouter):
                    raise ValueError(f"layer {module.layer_id} chooses its experts inside its kernel")
                self._layers.append(module.layer_id)
                module.router.set_capture_fn(self._of_layer(module.layer_id))
        if not self._layers:
            raise ValueError("the model has no experts")
        model.register_forward_hook(self._after_step)

    def take(self, request_ids: Sequence[str], awaited: Collection[str]) -> list[Plain]:
        """See `RoutingRecord.take`."""
        taken = self.record.take(request_ids, self._runner.requests, awaited)
        return [(rows.tobytes(), rows.shape, rows.dtype.name) for rows in taken]

    def _of_layer(self, layer: int) -> Any:
        def capture(experts: Any) -> None:
            self._step[layer] = experts.detach().cpu().numpy().astype(self.record.dtype)

        return capture

    def _after_step(self, model: Any, args: Any, output: Any) -> None:
        runner, step = self._runner, self._step
        batch = runner.input_batch
        number = batch.num_reqs
        self._step = {}
        if not number:
            return  # a trial run of no request
        ends = runner.query_start_loc.np[: number + 1]
        total = int(ends[number])
        if any(layer not in step or len(step[layer]) < total for layer in self._layers):
            # A layer that was compiled before the hook was there: its tokens must not go without, unnoticed.
            raise RuntimeError(f"{len(step)} of {len(self._layers)} layers said which experts they chose")
        rows = np.zeros((total, *self.record.shape), self.record.dtype)
        for layer in self._layers:
            rows[:, layer] = step[layer][:total]
        self.record.note(
            (
                ComputedSpan(
                    request_id,
                    int(batch.num_computed_tokens_cpu[place]),
                    int(ends[place + 1] - ends[place]),
                    runner.requests[request_id].block_ids[0],
                )
                for place, request_id in enumerate(batch.req_ids[:number])
            ),
            rows,
        )


class RoutingReporter:
    """What this module adds to vLLM's workers, called by `collective_rpc`."""

    model_runner: Any

    def begin_routing_capture(self) -> None:
        """From now on, remember which experts each token is sent to."""
        self.routing_capture = RoutingCapture(self.model_runner)

    def take_routing(self, request_ids: Sequence[str], awaited: Sequence[str]) -> list[Plain]:
        """[R, L, K] of each request; they are forgotten. `awaited`: those that will be asked for yet."""
        return self.routing_capture.take(request_ids, awaited)
