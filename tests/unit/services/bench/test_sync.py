"""The arithmetic of `rayzero bench sync`."""

from __future__ import annotations

import pytest

from rayzero.services.bench.sync import first_token, least_traffic, run
from rayzero.services.schema.errors import RayzeroError, UsageError


def test_the_first_token_after_a_sync_is_counted_in_decode_steps_of_before_it() -> None:
    # The prompts' step takes 0.5 s, a decode step 0.1 s; the sync lasts from 0.95 s to 1.35 s and ends a step early.
    times = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.5, 1.6]
    found = first_token(times, resumed=1.35, sync_s=0.4)
    assert found == pytest.approx({"step_s": 0.1, "first_token_steps": 1.5})


def test_a_generation_that_ended_before_the_sync_did_says_so() -> None:
    with pytest.raises(RayzeroError, match="no first token"):
        first_token([0.5, 0.6, 0.7, 0.8], resumed=1.35, sync_s=0.4)


def test_the_least_traffic_counts_every_weight_as_read_sent_received_and_written() -> None:
    assert least_traffic(200, "bfloat16") == 400 + 200 + 200 + 200
    assert least_traffic(400, "float32") == 4 * 400


def test_deltas_of_adapters_are_refused() -> None:
    with pytest.raises(UsageError, match="leave --changed or --lora out"):
        run("smollm2-135m-instruct", "bfloat16", 1, 1, as_json=True, lora_rank=8, changed=0.02)
