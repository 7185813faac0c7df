"""The learner computes on the device that it was given, and makes supervised updates as they are written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rayzero.learner.actor import LearnerActor
from rayzero.rollout_workers.broadcast.group import ReceiverGroup
from rayzero.services.schema.errors import ActorStartError
from tests.system import LOOPBACKS
from tests.unit.learner.broadcast.test_delta import Receiver
from tests.unit.rollout_workers.broadcast.test_group import DEADLINE_S, begin
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


SOURCE = {"kind": "function", "function": "rayzero.services.data.tasks.numbers:addition_demonstrations"}


@pytest.mark.parametrize("asked", [True, False])
async def test_engines_elsewhere_are_sent_what_a_small_step_changed(
    tiny_model: Path, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    small = {"optimizer": {"learning_rate": 1e-6}}
    settings = recipe(cluster={"delta_sync": asked}, learner=small, training={"num_updates": 3})
    actor = LearnerActor(settings, str(tiny_model))
    await actor.start("cpu")
    actor._sender._share_memory = False
    joining = begin(ReceiverGroup, await actor.open_transfer(1), 1, DEADLINE_S)
    await actor.accept_transfer()
    receiver = Receiver(joining.result(DEADLINE_S))
    example = (np.array([1, 2], dtype=np.int32), np.array([3, 4], dtype=np.int32))
    sent = []
    for version in range(3):
        manifest = await actor.prepare_weights(version)
        taking = begin(receiver.take, manifest)
        sent.append(await actor.broadcast_weights())
        for (_, tensor), (_, wanted) in zip(
            taking.result(DEADLINE_S), actor._learner.policy.sent_weights(), strict=True
        ):
            assert torch.equal(tensor, wanted.bfloat16())
        await actor.sft_step([example], version)
    assert sent[0] == manifest.num_bytes
    assert all(num_bytes < sent[0] // 4 for num_bytes in sent[1:]) if asked else sent == [sent[0]] * 3
    await actor.shutdown()


@pytest.mark.parametrize("cold", [True, False], ids=["cold start", "stage of a pipeline"])
async def test_supervised_updates_have_the_optimizer_that_is_written_for_them(tiny_model: Path, cold: bool) -> None:
    own = {"learning_rate": 0.01, "decay": "linear", "floor": 0.5, "warmup_updates": 1}
    start = {"cold_start": {"source": SOURCE, "num_updates": 3, "optimizer": own}}
    changes: dict[str, Any] = start if cold else {"learner": {"optimizer": own}, "training": {"num_updates": 3}}
    settings = recipe(model={"dtype": "float32"}, rollout={"sampling": {"temperature": 0.6}}, **changes)
    actor = LearnerActor(settings, str(tiny_model))
    await actor.start("cpu")
    example = (np.array([1, 2], dtype=np.int32), np.array([3, 4], dtype=np.int32))
    rows = [await actor.sft_step([example], update) for update in range(3)]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.01, 0.01, 0.005])
    assert rows[2]["loss"] < rows[0]["loss"]
    await actor.end_sft()
    assert actor._learner.optimizer._settings == settings.learner.optimizer
    await actor.shutdown()
