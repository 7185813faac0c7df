"""Episodes of several turns at one real engine: the record is what it was fed and gave, and what it would score."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from rayzero.rollout_workers.broadcast.loading import PAUSE_MODES
from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.environment import engine_environment
from rayzero.rollout_workers.episodes.tool_calls import CallNumbers, SampledText, parser_of
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord, EpisodeRequest
from rayzero.services.schema.errors import EpisodeClosed, PromptTooLong, RecipeError
from rayzero.services.schema.messages import ChatMessage, GroupBatch, Prompt, Sampling
from tests.episode_models import Feed, check_shape, unfolded
from tests.models import build_tiny_model, character_tokenizer

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = RolloutSettings(
    kv_cache_bytes=2**28, max_model_tokens=768, max_num_seqs=32, num_threads=1, sampling={"max_tokens": 120}
)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(engine_environment(SETTINGS))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model: Path) -> AsyncIterator[RolloutEngine]:
    spec = EngineSpec(model_path=str(model), dtype="float32", settings=SETTINGS)
    engine = RolloutEngine("rollout-0", spec, deadline_s=60.0)
    await engine.start()
    yield engine
    await engine.shutdown()


@pytest.fixture
def feeds(engine: RolloutEngine, monkeypatch: pytest.MonkeyPatch) -> list[Feed]:
    """All that the engine itself is fed and gives, from here on."""
    noted: list[Feed] = []
    complete = engine._complete

    async def noting(of: Any, prompt: Any, *others: Any) -> Any:
        output = await complete(of, prompt, *others)
        for part in output.outputs:
            if part.logprobs is not None:
                logprobs = np.asarray(part.logprobs.logprobs, dtype=np.float32)
                noted.append(Feed(tuple(prompt.tolist()), tuple(part.token_ids), tuple(logprobs.tolist())))
        return output

    monkeypatch.setattr(engine, "_complete", noting)
    return noted


def request(index: int, *, group_id: int = 1, wave: GroupBatch | None = None, max_tokens: int = 120) -> EpisodeRequest:
    question = ChatMessage(role="user", content="Count to ten.")
    return EpisodeRequest(
        group_id=group_id,
        index=index,
        prompt=Prompt(prompt_id="p", messages=(question,), answer=None),
        sampling=Sampling(num_completions=1, max_tokens=max_tokens, seed=100 * group_id + index),
        wave=wave,
    )


async def play(engine: RolloutEngine, asked: EpisodeRequest, num_turns: int = 4) -> EpisodeRecord:
    """An episode to its end; the environment answers with the number of letters it was told."""
    session = await engine.open_episode(asked)
    messages: list[ChatMessage] = []
    for _ in range(num_turns):
        turn = await engine.turn(session, messages)
        if turn.num_tokens == 0:
            break
        messages += [turn.message, ChatMessage(role="user", content=f"{len(turn.message.content)} letters")]
    return await engine.close_episode(session)


def parts_of(record: EpisodeRecord) -> list[Any]:
    return [record.completion, *(branch.completion for branch in record.completion.branches)]


async def test_episodes_are_recorded_as_the_engine_was_fed(engine: RolloutEngine, feeds: list[Feed]) -> None:
    records = await asyncio.gather(*(play(engine, request(index)) for index in range(16)))
    found = [feed for record in records for feed in unfolded(record)]
    assert Counter(found) == Counter(feeds)
    assert max(len(record.completion.turns) for record in records) > 1
    for record in records:
        assert record.prompt_text == "<|start|>user\nCount to ten.<|end|>\n<|start|>assistant\n"
        for part in parts_of(record):
            check_shape(part)


async def test_turns_score_as_they_were_sampled_like_a_single_turn(engine: RolloutEngine, model: Path) -> None:
    """The KL to the same weights, by the engine and by transformers, is no larger after observations than without."""
    import torch
    from transformers import AutoModelForCausalLM

    learner = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    first: list[float] = []
    later: list[float] = []
    for record in await asyncio.gather(*(play(engine, request(index, group_id=2)) for index in range(6))):
        for number, feed in enumerate(unfolded(record)):
            fed, gave = np.asarray(feed.fed, dtype=np.int32), np.asarray(feed.gave, dtype=np.int32)
            sampled = np.asarray(feed.logprobs)
            scored = await engine.logprobs(fed, gave)
            with torch.no_grad():
                logits = learner(torch.tensor([[*feed.fed, *feed.gave]])).logits[0, len(fed) - 1 : -1]
            learnt = logits.log_softmax(-1).gather(1, torch.tensor(feed.gave)[:, None])[:, 0].numpy()
            gap = max(np.abs(scored - sampled).max(), np.abs(learnt - sampled).max())
            (later if number else first).append(float(gap))
    assert len(later) > 6
    assert max(later) < 1e-3 and max(first) < 1e-3


async def test_a_wave_is_bit_equal_however_its_environments_dawdle(engine: RolloutEngine) -> None:
    async def slow(asked: EpisodeRequest, pause_s: float) -> EpisodeRecord:
        await asyncio.sleep(pause_s)
        return await play(engine, asked, num_turns=2 + asked.index % 3)

    waves = []
    for attempt in range(2):
        wave = GroupBatch(batch_id=f"wave {attempt}", size=6)
        pauses = [0.02 * ((index * (attempt + 1)) % 5) for index in range(6)]
        playing = (slow(request(index, group_id=3, wave=wave), pauses[index]) for index in range(6))
        waves.append(await asyncio.wait_for(asyncio.gather(*playing), 60))
    for one, other in zip(*waves, strict=True):
        assert unfolded(one) == unfolded(other)


@pytest.mark.parametrize("mode", PAUSE_MODES)
async def test_new_weights_between_and_within_turns_are_spans(
    engine: RolloutEngine, feeds: list[Feed], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_settings", SETTINGS.model_copy(update={"on_weights": mode}))
    before = engine.policy_version
    session = await engine.open_episode(request(0, group_id=40 + list(PAUSE_MODES).index(mode), max_tokens=250))
    turning = asyncio.create_task(engine.turn(session, ()))
    while engine.stats().num_running == 0:
        await asyncio.sleep(0.002)
    await new_version(engine, mode)
    first = await turning
    await new_version(engine, mode)
    await engine.turn(session, (first.message, ChatMessage(role="user", content="Go on.")))
    record = await engine.close_episode(session)
    versions = [span.policy_version for part in parts_of(record) for span in part.version_spans]
    assert versions[0] in (before, before + 1) and versions[-1] == before + 2
    for part in parts_of(record):
        check_shape(part)
    if mode != "abort":
        assert Counter(unfolded(record)) == Counter(feeds)
    else:  # what was cut off was fed again, with what there was of it
        fed = {feed.fed + feed.gave for feed in feeds}
        assert all(feed.fed + feed.gave in fed for feed in unfolded(record))


async def new_version(engine: RolloutEngine, mode: str) -> None:
    """As a broadcast does it, with weights that are the same."""
    llm, (pause, clear_cache) = engine._calls.engine, PAUSE_MODES[mode]
    async with engine._weights.lock:
        await llm.engine_core.pause_scheduler_async(mode=pause, clear_cache=clear_cache)
        version = engine.policy_version + 1
        await llm.update_weight_version(str(version))
        engine._weights.policy_version = version
        await llm.resume_generation()


async def test_an_aborted_group_takes_no_turn_more_and_a_closed_session_none_at_all(engine: RolloutEngine) -> None:
    sessions = [await engine.open_episode(request(index, group_id=5, max_tokens=600)) for index in range(2)]
    turning = [asyncio.create_task(engine.turn(session, ())) for session in sessions]
    while engine.stats().num_running == 0:
        await asyncio.sleep(0.002)
    await engine.abort(5)
    turns = await asyncio.wait_for(asyncio.gather(*turning), 10)
    assert all(turn.end in (EpisodeEnd.ABORTED, None) for turn in turns)
    again = await engine.turn(sessions[0], (turns[0].message, ChatMessage(role="user", content="Go on.")))
    assert (again.end, again.num_tokens) == (EpisodeEnd.ABORTED, 0)
    for session in sessions:
        assert (await engine.close_episode(session)).completion.num_tokens >= 0
        with pytest.raises(EpisodeClosed, match="is closed"):
            await engine.turn(session, ())
        with pytest.raises(EpisodeClosed, match="is closed"):
            await engine.close_episode(session)
    with pytest.raises(EpisodeClosed, match="no such session"):
        await engine.turn("made-up", ())


async def test_a_turn_that_runs_at_the_close_leaves_the_engine(engine: RolloutEngine) -> None:
    session = await engine.open_episode(request(0, group_id=6, max_tokens=700))
    turning = asyncio.create_task(engine.turn(session, ()))
    while engine.stats().num_running == 0:
        await asyncio.sleep(0.002)
    record = await engine.close_episode(session)
    with pytest.raises(EpisodeClosed):
        await turning
    assert record.completion.num_tokens == 0 and not record.completion.turns
    async with asyncio.timeout(10):
        while engine._calls.ready().get_num_unfinished_requests():
            await asyncio.sleep(0.01)


async def test_what_cannot_begin_is_refused_by_name(engine: RolloutEngine) -> None:
    asked = request(0)
    long = replace(asked.prompt, messages=(ChatMessage(role="user", content="x" * 900),))
    with pytest.raises(PromptTooLong, match=r"rollout\.max_model_tokens is 768"):
        await engine.open_episode(replace(asked, prompt=long))
    with pytest.raises(RecipeError, match=r"environment.tool_parser: there is no hermez; there are .*hermes"):
        await engine.open_episode(replace(asked, tool_parser="hermez"))
    with pytest.raises(RecipeError, match=r"environment.tool_parser mistral does not fit"):
        await engine.open_episode(replace(asked, tool_parser="mistral"))


async def test_vllms_parsers_are_found_by_their_names() -> None:
    def parsed(text: str) -> ChatMessage:
        return parser.parse(SampledText(text=text, raw=text, opening=""))

    parser = parser_of("pythonic", character_tokenizer(), (TOOL,), CallNumbers())
    assert [(call.name, call.arguments) for call in parsed('[look(at="abc")]').tool_calls] == [("look", {"at": "abc"})]
    assert parsed("hello") == ChatMessage(role="assistant", content="hello")
