"""Rows reach the request and position that they are of, however an engine cuts, shares, pushes out and resumes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from rayzero.rollout_workers import routing_capture
from rayzero.rollout_workers.routing_capture import KEPT_S, ComputedSpan, RoutingRecord

BLOCK, SHAPE, NUM_BLOCKS = 4, (2, 3), 24
Tokens = tuple[int, ...]


def row(prefix: Tokens, time: int) -> NDArray[np.uint8]:
    """What routers choose for the last token of a prefix; at another time they may choose otherwise."""
    return np.random.default_rng((time, *prefix)).integers(0, 256, SHAPE, dtype=np.uint8)


@dataclass(eq=False)
class Request:
    name: str
    tokens: Tokens
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    """When each token was computed whose keys and values its blocks hold."""
    first: list[int] = field(default_factory=list)
    """The same of the first time that this request had the token."""

    @property
    def expected(self) -> NDArray[np.uint8]:
        return np.stack([row(self.tokens[: place + 1], time) for place, time in enumerate(self.first)])


class Engine:
    """Schedules as vLLM does: full blocks are found by other requests with the same tokens, in the same step too; they
    are given away when there is no other, and hold what they held until then."""

    def __init__(self) -> None:
        self.record = RoutingRecord(NUM_BLOCKS * BLOCK, BLOCK, SHAPE, 256)
        self.live: list[Request] = []
        self._free = list(range(NUM_BLOCKS))
        self._cached: dict[Tokens, tuple[int, list[int]]] = {}
        self._times = itertools.count(1)

    def step(self, scheduled: list[tuple[Request, int]]) -> None:
        parts, time = [], next(self._times)
        for request, number in scheduled:
            if not request.computed:
                self._find(request)
            start, end = request.computed, min(request.computed + number, len(request.tokens))
            while len(request.blocks) * BLOCK < end:
                request.blocks.append(self._block())
            span = ComputedSpan(request.name, start, end - start, list(request.blocks))
            parts.append((span, [row(request.tokens[: place + 1], time) for place in range(start, end)]))
            self._computed(request, [time] * (end - start))
            for block in range(start // BLOCK, end // BLOCK):
                held = request.blocks[block], request.stored[block * BLOCK : (block + 1) * BLOCK]
                self._cached.setdefault(request.tokens[: (block + 1) * BLOCK], held)
        parts.reverse()  # the order in a batch is not that in which requests were scheduled
        self.record.note([span for span, _ in parts], np.stack([each for _, rows in parts for each in rows]))

    def push_out(self, request: Request) -> None:
        kept = {block for block, _ in self._cached.values()} | {
            b for r in self.live if r is not request for b in r.blocks
        }
        self._free += [block for block in request.blocks if block not in kept]
        request.blocks, request.stored, request.computed = [], [], 0

    def end(self, request: Request) -> None:
        self.live.remove(request)
        self.push_out(request)

    def _find(self, request: Request) -> None:
        while request.computed + BLOCK < len(request.tokens):  # the last token is computed in any case
            found = self._cached.get(request.tokens[: request.computed + BLOCK])
            if found is None:
                return
            request.blocks.append(found[0])
            self._computed(request, found[1])

    @staticmethod
    def _computed(request: Request, times: list[int]) -> None:
        request.stored += times
        request.computed += len(times)
        request.first += request.stored[len(request.first) :]

    def _block(self) -> int:
        if not self._free:
            held = {block for request in self.live for block in request.blocks}
            prefix = next(prefix for prefix, (block, _) in self._cached.items() if block not in held)
            self._free.append(self._cached.pop(prefix)[0])
        return self._free.pop()


@pytest.mark.parametrize("seed", range(20))
def test_every_request_gets_the_rows_of_its_own_tokens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    engine, names, ended = Engine(), itertools.count(), 0
    common: list[Tokens] = [tuple(rng.integers(0, 9, 11).tolist()) for _ in range(2)]
    pushed_out = found = 0
    while ended < 40:
        while len(engine.live) < 3:
            rest = tuple(rng.integers(0, 9, int(rng.integers(1, 10))).tolist())
            engine.live.append(Request(f"{next(names)}", common[int(rng.integers(2))] + rest))
        chosen = [request for request in engine.live if rng.random() < 0.7]
        if not chosen:
            continue
        engine.step([(request, int(rng.integers(1, 8))) for request in chosen])
        for request in list(engine.live):
            if request.computed == len(request.tokens):
                (taken,) = engine.record.take([request.name], (), ())
                np.testing.assert_array_equal(taken, request.expected)
                found += request.first[0] != request.first[-1]
                engine.end(request)
                ended += 1
            elif request.computed and rng.random() < 0.15:
                engine.push_out(request)
                pushed_out += 1
    assert pushed_out > 3 and found > 10, "what the test is about has happened"


def test_a_prefix_that_was_never_recorded_leaves_no_rows_that_would_be_of_others() -> None:
    record = RoutingRecord(2 * BLOCK, BLOCK, SHAPE, 256)
    record.note([ComputedSpan("late", BLOCK, 2, [0, 1])], np.ones((2, *SHAPE), np.uint8))
    record.note([ComputedSpan("late", BLOCK + 2, 1, [0, 1])], np.ones((1, *SHAPE), np.uint8))
    (taken,) = record.take(["late"], (), ())
    assert taken.shape == (0, *SHAPE)


def test_a_request_that_is_not_known_has_no_rows() -> None:
    (taken,) = RoutingRecord(BLOCK, BLOCK, SHAPE, 256).take(["none"], (), ())
    assert taken.shape == (0, *SHAPE) and taken.dtype == np.uint8


def test_more_than_256_experts_take_two_bytes() -> None:
    record = RoutingRecord(BLOCK, BLOCK, SHAPE, 300)
    record.note([ComputedSpan("a", 0, 1, [0])], np.full((1, *SHAPE), 299))
    (taken,) = record.take(["a"], (), ())
    assert taken.dtype == np.uint16 and taken.max() == 299


def test_what_is_never_asked_for_is_forgotten_and_what_is_awaited_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(routing_capture, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    record = RoutingRecord(4 * BLOCK, BLOCK, SHAPE, 256)
    for place, name in enumerate(["aborted", "awaited", "live"]):
        record.note([ComputedSpan(name, 0, 1, [place])], np.ones((1, *SHAPE), np.uint8))
    record.take([], (), ())
    assert set(record._requests) == {"aborted", "awaited", "live"}, "one may not have said yet that he waits"
    clock[0] = KEPT_S + 1
    record.take([], {"live"}, {"awaited"})
    assert set(record._requests) == {"awaited", "live"}
