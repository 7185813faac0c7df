"""One real engine on a tiny model: what comes back, how often the same, and what is left when it is killed."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import get_args

import numpy as np
import psutil
import pytest
import pytest_asyncio

from rayzero.rollout_workers.engine_process import PRELOADED, EngineSpec, engine_arguments
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.schema.config.rollout import Quantization, RolloutSettings
from rayzero.services.schema.errors import RecipeError, WorkerError
from rayzero.services.schema.messages import ChatMessage, GroupCompletions, GroupRequest, Prompt, Sampling
from tests.engine_environment import as_an_engines
from tests.models import build_tiny_model, character_tokenizer

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = RolloutSettings(
    kv_cache_bytes=2**28, max_model_tokens=256, max_num_seqs=32, num_threads=1, sampling={"max_tokens": 64}
)


def spec_of(path: Path) -> EngineSpec:
    return EngineSpec(model_path=str(path), dtype="float32", settings=SETTINGS)


def request(
    group_id: int, content: str = "Count to ten.", max_tokens: int = 48, num_completions: int = 8
) -> GroupRequest:
    prompt = Prompt(prompt_id=str(group_id), messages=(ChatMessage(role="user", content=content),), answer=None)
    sampling = Sampling(num_completions=num_completions, max_tokens=max_tokens, seed=1000 + group_id)
    return GroupRequest(group_id=group_id, prompt=prompt, sampling=sampling)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with as_an_engines(SETTINGS):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


async def test_vllm_has_what_a_gpu_engine_is_given() -> None:
    """Without a GPU its arguments can be held against vLLM's own, and no more."""
    from vllm.config.quantization import ONLINE_QUANT_SHORTHAND_NAMES
    from vllm.engine.arg_utils import AsyncEngineArgs

    for quantization in get_args(Quantization):
        settings = RolloutSettings(device="cuda", quantization=quantization)
        arguments = engine_arguments(EngineSpec(model_path="m", dtype="bfloat16", settings=settings))
        assert arguments["quantization"] in ONLINE_QUANT_SHORTHAND_NAMES
        assert arguments.keys() <= {field.name for field in fields(AsyncEngineArgs)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model: Path) -> AsyncIterator[RolloutEngine]:
    engine = RolloutEngine("rollout-0", spec_of(model), deadline_s=60.0)
    await engine.start()
    yield engine
    await engine.shutdown()


async def idle(engine: RolloutEngine) -> None:
    async with asyncio.timeout(10):
        while engine._calls.ready().get_num_unfinished_requests():
            await asyncio.sleep(0.01)


async def test_all_that_the_fork_server_imports_ahead_is_there() -> None:
    """It passes over what it cannot import, and every engine would import that by itself."""
    for name in PRELOADED:
        importlib.import_module(name)


async def test_what_cuts_the_distribution_and_what_ends_a_completion_is_obeyed(engine: RolloutEngine) -> None:
    asked = request(60, max_tokens=64)
    likeliest = await engine.generate(replace(asked, sampling=replace(asked.sampling, top_k=1)))
    assert len({made.text for made in likeliest.completions}) == 1, "one token to choose from: temperature has no say"
    whole = await engine.generate(asked)
    text = max((made.text for made in whole.completions), key=len)
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    cut = await engine.generate(replace(asked, sampling=replace(asked.sampling, stop=(stop,))))
    for before, after in zip(whole.completions, cut.completions, strict=True):
        assert after.token_ids.tolist() == before.token_ids[: after.num_tokens].tolist()
        assert (stop in before.text) == (after.num_tokens < before.num_tokens or before.text.endswith(stop))
        assert len(after.rollout_logprobs) == after.version_spans[-1].end == after.num_tokens


async def test_group_holds_g_different_completions_with_all_their_tokens(engine: RolloutEngine) -> None:
    made = await engine.generate(request(1, max_tokens=200))
    tokenizer = character_tokenizer()
    assert made.prompt_text == "<|start|>user\nCount to ten.<|end|>\n<|start|>assistant\n"
    assert made.prompt_token_ids.tolist() == tokenizer.encode(made.prompt_text)
    assert len({completion.text for completion in made.completions}) == 8
    for completion in made.completions:
        assert completion.token_ids.dtype == np.int32
        assert completion.rollout_logprobs.shape == completion.token_ids.shape
        assert (completion.rollout_logprobs < 0).all()
        assert completion.text == tokenizer.decode(completion.token_ids, skip_special_tokens=True)
        ended = completion.token_ids[-1] == tokenizer.eos_token_id
        assert ended == (completion.finish_reason == "stop"), "the end-of-sequence token is part of what was sampled"
        assert tokenizer.eos_token_id not in completion.token_ids[:-1]


async def test_same_seed_samples_the_same_and_another_does_not(engine: RolloutEngine) -> None:
    first, again, other = [await engine.generate(request(group_id)) for group_id in (2, 2, 3)]
    assert texts(first) == texts(again)
    assert not set(texts(first)) & set(texts(other))


async def test_batch_that_starts_as_a_whole_is_bit_equal(engine: RolloutEngine) -> None:
    batches = []
    for _ in range(2):
        await idle(engine)
        async with engine._calls.held():
            tasks = [asyncio.create_task(engine.generate(request(group_id))) for group_id in range(10, 16)]
            await asyncio.sleep(0.2)
        batches.append(await asyncio.gather(*tasks))
    for first, second in zip(*batches, strict=True):
        assert texts(first) == texts(second)
        for one, other in zip(first.completions, second.completions, strict=True):
            assert (one.rollout_logprobs == other.rollout_logprobs).all()


async def test_aborted_group_comes_back_with_what_there_is(engine: RolloutEngine) -> None:
    running = asyncio.create_task(engine.generate(request(20, max_tokens=200)))
    while engine.stats().num_running == 0:
        await asyncio.sleep(0.005)
    await engine.abort(20)
    made = await asyncio.wait_for(running, 10)
    assert len(made.completions) == 8
    assert "abort" in {completion.finish_reason for completion in made.completions}
    for completion in made.completions:
        assert completion.version_spans[-1].end == completion.num_tokens
    await engine.abort(20)  # it has ended: nothing to do


async def test_cancelled_request_leaves_the_engine(engine: RolloutEngine) -> None:
    running = asyncio.create_task(engine.generate(request(21, max_tokens=200)))
    await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await idle(engine)


async def test_long_prompt_is_refused_by_name_and_a_long_completion_ends(engine: RolloutEngine) -> None:
    with pytest.raises(RecipeError, match=r"prompt 22 has \d+ tokens, and rollout.max_model_tokens is 256"):
        await engine.generate(request(22, content="x" * 300))
    made = await engine.generate(request(23, content="x" * 200, max_tokens=200))
    assert max(completion.num_tokens for completion in made.completions) <= 256 - len(made.prompt_token_ids)


async def test_more_groups_than_the_engine_computes_side_by_side_wait_inside(engine: RolloutEngine) -> None:
    before = engine.stats().generated_tokens
    made = await asyncio.gather(*(engine.generate(request(group_id)) for group_id in range(30, 42)))
    sampled = sum(completion.num_tokens for group in made for completion in group.completions)
    assert engine.stats().generated_tokens - before == sampled
    assert engine.stats().num_running <= SETTINGS.num_seqs


async def test_engine_whose_process_is_killed_says_so_and_nothing_hangs(model: Path) -> None:
    engine = RolloutEngine("rollout-1", spec_of(model), deadline_s=20.0)
    await engine.start()
    running = asyncio.create_task(engine.generate(request(50, max_tokens=200)))
    while engine.stats().num_running == 0:
        await asyncio.sleep(0.005)
    (core,) = engine._calls.engine.engine_core.resources.engine_manager.processes
    os.kill(core.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="rollout-1"):
        await asyncio.wait_for(running, 30)
    with pytest.raises(WorkerError, match="has died"):
        await engine.generate(request(51))
    await engine.shutdown()


def start_and_report(model: Path, pipe: Connection) -> None:
    async def main() -> None:
        engine = RolloutEngine("rollout-2", spec_of(model), deadline_s=60.0)
        await engine.start()
        pipe.send([child.pid for child in psutil.Process().children(recursive=True)])
        await asyncio.sleep(600)

    asyncio.run(main())


async def test_killed_worker_leaves_no_process_behind(model: Path) -> None:
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=start_and_report, args=(model, there))
    worker.start()
    children = await asyncio.to_thread(here.recv)
    assert children
    worker.kill()
    worker.join()
    here.close()
    there.close()
    give_up = time.monotonic() + 10
    while (left := [pid for pid in children if psutil.pid_exists(pid)]) and time.monotonic() < give_up:
        await asyncio.sleep(0.05)
    assert not left


def texts(made: GroupCompletions) -> list[str]:
    return [completion.text for completion in made.completions]
