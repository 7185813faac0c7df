"""A real engine that loads a broadcast bucket by bucket in its pause, and one that stages it beside generation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from rayzero.learner.broadcast.stream import BucketStream
from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.weights import WeightManifest
from tests.engine_environment import as_an_engines
from tests.integration.test_weight_sync import DEADLINE_S, SETTINGS, Pair, request
from tests.models import build_tiny_model

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAYS = {
    "loaded in the pause, shared memory": ("streamed", True, "bfloat16", True),
    "loaded in the pause, gloo": ("streamed", False, "float32", False),
    "staged, gloo": ("staged", False, "bfloat16", False),
}


class StreamedPair(Pair):
    """The same pair, its weights made while they are sent."""

    def __init__(self, path: Path, dtype: str, *, loading: str, share_memory: bool) -> None:
        super().__init__(path, dtype, share_memory=share_memory)
        settings = SETTINGS.model_copy(update={"weight_loading": loading})
        spec = EngineSpec(model_path=str(path), dtype=dtype, settings=settings)
        self.engine = RolloutEngine("rollout-0", spec, deadline_s=DEADLINE_S)
        self.loads_in_pause = loading == "streamed"

    def announce(self, version: int) -> WeightManifest:
        return self.sender.announce([(name, p.shape) for name, p in self.policy.named_parameters()], version)

    async def stream(self, version: int) -> list[BaseException | None]:
        """What went wrong with the engine, and with the sender."""
        ends = await asyncio.gather(
            self.engine.receive_weights(self.announce(version)),
            asyncio.to_thread(self.sender.stream, self.policy.named_parameters()),
            return_exceptions=True,
        )
        return [end if isinstance(end, BaseException) else None for end in ends]

    async def sync(self, adapters: None = None) -> None:  # type: ignore[override]
        self.version += 1
        assert await self.stream(self.version) == [None, None]
        receipt = await self.engine.apply_weights(self.version)
        assert (receipt.policy_version, receipt.num_tensors) == (self.version, len(list(self.policy.parameters())))


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with as_an_engines(SETTINGS):
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(WAYS.values()), ids=list(WAYS))
async def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StreamedPair]:
    loading, share_memory, dtype, tied = request.param
    path = build_tiny_model(tmp_path_factory.mktemp("model"), tied=tied, redundant_head=tied, dtype=dtype)
    pair = StreamedPair(path, dtype, loading=loading, share_memory=share_memory)
    await pair.start()
    yield pair
    await pair.end()


async def test_engine_and_policy_agree_after_every_sync(pair: StreamedPair) -> None:
    for _ in range(3):
        pair.perturb()
        assert await pair.differs_by() > 2 * pair.tolerance, "the change is too small for the test to see"
        await pair.sync()
        assert pair.engine.policy_version == pair.version
        assert await pair.differs_by() <= pair.tolerance
    manifest = pair.announce(pair.version)
    assert len(manifest.bucket_bytes) > 2, "more than are held at a time"


async def test_running_completions_stand_still_and_go_on(pair: StreamedPair) -> None:
    running = asyncio.create_task(pair.engine.generate(request(group_id=91, max_tokens=400, num_completions=8)))
    while pair.engine.stats().num_running == 0:
        await asyncio.sleep(0.01)
    pair.perturb()
    await pair.sync()
    made = await running
    assert {completion.newest_version for completion in made.completions} >= {pair.version}
    assert all(np.isfinite(completion.rollout_logprobs).all() for completion in made.completions)


async def test_a_flipped_bit_is_caught_and_no_mixture_serves(
    pair: StreamedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = BucketStream.fill

    def flipped(stream: BucketStream, index: int, tensors: object) -> None:
        fill(stream, index, tensors)  # type: ignore[arg-type]
        if index == 1:
            stream.bucket(index)[0] ^= 1

    before = pair.version
    pair.perturb()
    monkeypatch.setattr(BucketStream, "fill", flipped)
    received, sent = await pair.stream(before + 1)
    monkeypatch.undo()
    assert sent is None and isinstance(received, WeightSyncError)
    assert "bytes differ from what the learner announced" in str(received)
    if pair.loads_in_pause:
        asked = asyncio.create_task(pair.engine.generate(request(group_id=95)))
        done, _ = await asyncio.wait([asked], timeout=0.5)
        assert not done, "an engine that has loaded half a model stands still"
        await pair.sync()  # it is sent the same version anew, whole
        made = await asked
        assert {completion.oldest_version for completion in made.completions} == {pair.version}
    else:
        assert pair.engine.policy_version == before
        await pair.sync()
    assert await pair.differs_by() <= pair.tolerance


async def test_a_sender_that_breaks_off_in_the_middle_costs_one_attempt(
    pair: StreamedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.perturb()
    fill = BucketStream.fill

    def breaks_off(stream: BucketStream, index: int, tensors: object) -> None:
        if index == 2:
            raise WeightSyncError("another receiver is lost")
        fill(stream, index, tensors)  # type: ignore[arg-type]

    monkeypatch.setattr(BucketStream, "fill", breaks_off)
    received, sent = await pair.stream(pair.version + 1)
    monkeypatch.undo()
    assert isinstance(received, WeightSyncError) and isinstance(sent, WeightSyncError)
    await pair.meet()
    await pair.sync()
    assert await pair.differs_by() <= pair.tolerance


async def test_half_a_model_cannot_be_applied(pair: StreamedPair, tmp_path: Path) -> None:
    """Last: the engine is lost by it."""
    if not pair.loads_in_pause:
        pytest.skip("nothing is loaded before the pause")
    named = list(pair.policy.named_parameters())
    manifest = pair.sender.announce([(name, p.shape) for name, p in named[:2] + named[3:]], pair.version + 1)
    with pytest.raises(WeightSyncError, match=f"missing from the manifest: {named[2][0]}"):
        await pair.engine.receive_weights(manifest)
    with pytest.raises(Exception, match="not taken whole"):
        await pair.engine.apply_weights(pair.version + 1)
    with pytest.raises(Exception, match="cannot be trusted"):
        await pair.engine.generate(request(group_id=96))
