"""The learner computes on the device that it was given: a GPU that torch sees may be another actor's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from rayzero.learner.actor import LearnerActor
from rayzero.services.schema.errors import ActorStartError
from tests.system import LOOPBACKS
from tests.unit.services.planning.test_memory_plan import recipe


@pytest.fixture
def actor(tiny_model: Path) -> LearnerActor:
    return LearnerActor(recipe(model={"dtype": "float32"}), str(tiny_model))


async def test_a_learner_without_gpu_computes_on_cpus_whatever_torch_sees(
    actor: LearnerActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    torch.set_num_threads(2)
    await actor.start("cpu")
    described = await actor.describe()
    assert (described["device"], described["num_threads"]) == ("cpu", 1), "no more threads than cores"
    await actor.shutdown()


async def test_a_gpu_that_torch_cannot_use_is_named(actor: LearnerActor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ActorStartError, match=r"a GPU is reserved for the learner, and torch .* cannot use it"):
        await actor.start("cuda")


@pytest.mark.parametrize("host", LOOPBACKS)
async def test_ranks_meet_at_an_address_of_the_nodes_family(
    actor: LearnerActor, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: host)
    place = await actor.meeting_point(2)
    assert (place.host, place.world_size) == (host, 2)
    assert place.port > 0
    assert Path(place.file).parent.stat().st_mode & 0o777 == 0o700, "a local Ray's ranks meet where no other user can"
