"""Routing as answers carry it: put where vLLM would have it, joined over parts, dealt to prompt and completions."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rayzero.rollout_workers.engine_calls import EngineCalls
from rayzero.rollout_workers.routed_experts import RoutedExperts, joined, without_prompt
from rayzero.services.schema.messages import Completion
from tests.fakes import make_completion

SHAPE = (2, 3)


def rows(start: int, end: int) -> NDArray[np.uint8]:
    return np.arange(start, end, dtype=np.uint8)[:, None, None] + np.zeros(SHAPE, np.uint8)


class Engine:
    """vLLM's, as far as it is asked."""

    errored = False

    def __init__(self, known: dict[str, NDArray[np.uint8]]) -> None:
        self.known = known
        self.calls: list[tuple[str, Any]] = []

    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        self.calls.append((method, args))
        if method == "begin_routing_capture":
            return [None]
        return [[[self.known[name].tobytes(), list(self.known[name].shape), "uint8"] for name in args[0]]]


def calls_of(engine: Engine) -> EngineCalls:
    calls = EngineCalls("rollout-0", 1.0)
    calls.engine = engine
    return calls


async def test_captured_rows_are_put_where_vllm_would_have_them() -> None:
    engine = Engine({"7-ab": rows(0, 5), "0_8-cd": rows(0, 4), "1_8-cd": rows(1, 3)})
    routing = RoutedExperts(calls_of(engine), captured=True)
    await routing.begin()
    one, two = SimpleNamespace(), [SimpleNamespace(), SimpleNamespace()]
    with routing.awaited("7-ab", 1), routing.awaited("8-cd", 2):
        await routing.put_into([one], "7-ab")
    await routing.put_into(two, "8-cd")
    np.testing.assert_array_equal(one.routed_experts, rows(0, 5))
    np.testing.assert_array_equal(two[1].routed_experts, rows(1, 3))
    assert [args[1] for method, args in engine.calls[1:]] == [["0_8-cd", "1_8-cd", "7-ab"], []]


async def test_where_vllm_returns_it_or_it_is_not_asked_for_the_engine_hears_nothing() -> None:
    engine = Engine({})
    routing = RoutedExperts(calls_of(engine), captured=False)
    await routing.begin()
    output = SimpleNamespace(routed_experts=None)
    with routing.awaited("7-ab", 1):
        await routing.put_into([output], "7-ab")
    assert output.routed_experts is None and engine.calls == []


def test_a_token_that_two_requests_had_keeps_what_it_was_sampled_from() -> None:
    later = rows(0, 9) + np.uint8(100)
    whole = joined(rows(0, 5), later)
    assert whole is not None
    np.testing.assert_array_equal(whole, np.concatenate([rows(0, 5), later[5:]]))
    assert joined(None, later) is later and joined(later, None) is later and joined(None, None) is None


def completion(num_tokens: int, known: NDArray[np.uint8] | None) -> Completion:
    tokens, logprobs = np.zeros(num_tokens, np.int32), np.zeros(num_tokens, np.float32)
    return replace(make_completion(), token_ids=tokens, rollout_logprobs=logprobs, routed_experts=known)


def test_the_prompts_rows_are_kept_once_and_completions_keep_their_own() -> None:
    prompt, made = without_prompt([completion(4, rows(0, 2)), completion(4, rows(0, 8)), completion(2, rows(0, 8))], 5)
    np.testing.assert_array_equal(prompt, rows(0, 5))
    found = [each.routed_experts for each in made]
    for each, expected in zip(found, [rows(0, 0), rows(5, 8), rows(5, 7)], strict=True):
        assert each is not None and each.base is None, "a view would take the prompt's along"
        np.testing.assert_array_equal(each, expected)


@pytest.mark.parametrize("number", [0, 2])
def test_where_nothing_is_recorded_nothing_is_dealt_out(number: int) -> None:
    made = tuple(completion(3, None) for _ in range(number))
    assert without_prompt(made, 5) == (None, made)
