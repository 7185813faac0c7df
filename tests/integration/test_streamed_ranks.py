"""Two gloo ranks stream to two real engines, and every way in which that can break: none serves a mixture, and the next
sync brings both to one version.

The learner's actors, the engines, the fleet, the supervisor and the weight sync are the loop's own; calls go over pipes
instead of Ray (tests/actors_without_ray.py). A recipe gives all engines of a run one way of loading; here one loads in
its pause and one stages, which the wire does not mind. Groups are generated all the while.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import pytest
import pytest_asyncio

from rayzero.rollout_workers import engine_process
from tests.actors_without_ray import carry_calls
from tests.engine_environment import as_an_engines
from tests.faulty_actor import arguments_with_faults
from tests.models import build_tiny_model
from tests.streamed_run import ENGINES, TOLERANCE, StreamedRun, Traffic, make_recipe

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIDDLE = 4
"""A bucket with others before and behind it."""
MIDDLE_TENSOR = 9
LONG = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    settings = make_recipe(tmp_path_factory.getbasetemp()).rollout
    with as_an_engines(settings), pytest.MonkeyPatch.context() as patch:
        carry_calls(patch.setattr)
        patch.setattr(engine_process, "engine_arguments", arguments_with_faults)
        yield


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[pytest.param(False, id="gloo"), pytest.param(True, id="shared memory", marks=LONG)],
)
async def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StreamedRun]:
    model = build_tiny_model(tmp_path_factory.mktemp("model"))
    run = StreamedRun(model, tmp_path_factory.mktemp("run"), share_memory=request.param)
    try:
        await run.start()
        yield run
    finally:
        await run.close()


def loads(name: str) -> str:
    return "streamed" if int(name.rpartition("-")[2]) % 2 == 0 else "staged"


async def strike(run: StreamedRun, spoil: Coroutine[Any, Any, None]) -> Traffic:
    """An update and its sync, in which something goes wrong, and what was generated meanwhile."""
    await run.train()
    traffic = Traffic(run.fleet)
    async with traffic.flowing():
        await spoil
        await run.broadcast()
    return traffic


async def prove(run: StreamedRun, traffic: Traffic) -> None:
    """No token came of a mixture; and the next sync brings both engines to the one version that the ranks hold."""
    assert len(traffic.made) >= 2 * ENGINES
    for made in traffic.made:
        run.check(made)
    assert set(run.versions().values()) == {run.version}, "an engine that serves serves the newest version"
    await run.refilled()
    await run.train()
    assert (await run.broadcast()).num_workers == ENGINES
    assert list(run.versions().values()) == [run.version] * ENGINES
    for name, worker in run.workers().items():
        assert await run.disagreement(worker) <= TOLERANCE, name


async def test_every_sync_brings_both_engines_to_what_the_ranks_hold(run: StreamedRun) -> None:
    traffic, before = Traffic(run.fleet), set(run.workers())
    async with traffic.flowing():
        for _ in range(2):
            await run.train()
            assert (await run.broadcast()).num_workers == ENGINES
    await prove(run, traffic)
    assert set(run.workers()) == before and run.learner.revivals == 0
    versions = {
        span.policy_version for made in traffic.made for each in made.completions for span in each.version_spans
    }
    assert len(versions) > 1


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=LONG)])
async def test_a_rank_that_dies_in_the_middle_costs_no_engine(run: StreamedRun, rank: int) -> None:
    before, revivals = set(run.workers()), run.learner.revivals
    traffic = await strike(run, run.spoil_rank(rank, "killed", MIDDLE_TENSOR))
    assert run.learner.revivals == revivals + 1
    assert set(run.workers()) == before, "an engine that only lost the transfer keeps its slot"
    await prove(run, traffic)


@pytest.mark.parametrize(
    ("kind", "loading"),
    [
        ("killed", "streamed"),
        *(
            pytest.param(kind, loading, marks=LONG)
            for kind in ("killed", "stalled", "flipped", "torn")
            for loading in ("streamed", "staged")
            if (kind, loading) != ("killed", "streamed")
        ),
    ],
)
async def test_an_engine_that_fails_in_the_middle_costs_itself_alone(run: StreamedRun, kind: str, loading: str) -> None:
    (victim,) = (name for name in run.workers() if loads(name) == loading)
    (healthy,) = set(run.workers()) - {victim}
    revivals = run.learner.revivals
    traffic = await strike(run, run.spoil_engine(victim, kind, MIDDLE))
    assert run.learner.revivals == revivals, "the learner is not to blame"
    assert healthy in run.workers() and victim not in run.workers()
    await prove(run, traffic)


@LONG
@pytest.mark.parametrize("kind", ["flipped", "dropped"])
async def test_a_bucket_that_the_learner_spoils_is_loaded_by_no_engine(run: StreamedRun, kind: str) -> None:
    failures = run.sync.failures
    traffic = await strike(run, run.spoil_rank(0, kind, MIDDLE))
    assert run.sync.failures > failures
    await prove(run, traffic)
