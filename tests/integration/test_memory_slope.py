"""Bytes a parameter, between a model of about 20 M parameters and one of about 80 M: as allocated, and as planned.

Two learner ranks over gloo, their tensors counted as they are made and let go of: at the start, in an update, a sync, a
checkpoint and a resume. The models differ in depth alone, so that what does not grow with it falls out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rayzero.learner.broadcast.sender import WeightSender
from rayzero.learner.model import saving
from rayzero.learner.model.policy import Policy
from rayzero.learner.model.ranks import join, leave
from rayzero.learner.update import checkpoint
from rayzero.learner.update.checkpoint import load_learner, save_learner
from rayzero.learner.update.learner import Learner
from rayzero.rollout_workers.broadcast.buffer import StagingBuffer
from rayzero.services.planning.memory_plan import engine_parts, learner_parts
from rayzero.services.planning.model_shape import ModelShape, read_shape
from rayzero.services.schema.addresses import free_port
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.messages import Rendezvous
from tests.models import build_tiny_model
from tests.unit.learner.kit import make_group
from tests.unit.rollout_workers.broadcast.test_group import begin, meet
from tests.unit.rollout_workers.broadcast.test_intake import Receiver
from tests.unit.services.planning.test_memory_plan import recipe

pytestmark = pytest.mark.long

LAYERS = {"small": 8, "large": 34}
BUCKET_BYTES = 2**20
PART_BYTES = 2**22
TOLERANCE = 0.10
PHASES = ("start", "update", "sync", "checkpoint", "resume")


class Allocations(TorchDispatchMode):
    """Bytes of all tensors' memory that is alive, and the most that there was since `begin`."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self.alive = self.peak = 0
        self._lock = threading.RLock()

    def begin(self) -> None:
        self.peak = self.alive

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor)
        return made

    def _see(self, tensor: torch.Tensor) -> None:
        while not hasattr(tensor, "_local_tensor") and type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            if (tensor := getattr(tensor, "elem", None)) is None:  # of a collective that is under way
                return
        tensor = tensor._local_tensor if isinstance(tensor, DTensor) else tensor
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_meta:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        with self._lock:
            if storage.nbytes() == 0 or key in self._sizes or storage.filename is not None:
                return  # empty, known, or mapped from a file
            self._sizes[key] = storage.nbytes()
            self.alive += storage.nbytes()
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, partial(self._gone, key))

    def _gone(self, key: int) -> None:
        with self._lock:
            self.alive -= self._sizes.pop(key, 0)


def settings() -> LearnerSettings:
    return LearnerSettings.model_validate({
        "compute": {"tokens_per_microbatch": 16},
        "watch": {"kl_warn": 1e6, "kl_stop": 1e6, "ess_warn": 0, "ess_stop": 0},
    })  # fmt: skip


def groups(update: int) -> list[Any]:
    return [make_group(np.random.default_rng(update), [3, 4], [1, 0], group_id=update)]


def measure(model: Path, folder: Path, rank: int, port: int) -> dict[str, int]:
    """Peaks of one rank, by phase."""
    torch.set_num_threads(1)
    checkpoint.PART_BYTES = saving.PART_BYTES = PART_BYTES
    ranks = join(rank, Rendezvous(host="127.0.0.1", port=port, world_size=2), "cpu", deadline_s=300)
    peaks: dict[str, int] = {}
    with Allocations() as allocations:

        def made() -> Learner:
            policy = Policy(model, dtype="bfloat16", compute=settings().compute, ranks=ranks)
            return Learner(policy, settings(), num_updates=5, max_completion_tokens=16)

        learner = made()
        peaks["start"] = allocations.peak
        learner.update(groups(0), 1)
        allocations.begin()
        learner.update(groups(1), 2)
        peaks["update"] = allocations.peak
        allocations.begin()
        stream(learner.policy, rank)
        peaks["sync"] = allocations.peak
        allocations.begin()
        save_learner(learner, folder)
        peaks["checkpoint"] = allocations.peak
        del learner
        allocations.begin()
        again = made()
        load_learner(again, folder)
        again.update(groups(2), 3)
        peaks["resume"] = allocations.peak
    leave()
    return peaks


def stream(policy: Policy, rank: int) -> None:
    """To two receivers, from rank 0."""
    if rank != 0:
        for _ in policy.sent_weights():
            pass
        return
    sender = WeightSender(torch.bfloat16, bucket_bytes=BUCKET_BYTES, share_memory=False, deadline_s=300)
    receivers = [Receiver(group) for group in meet(sender, 2)]
    for receiver in receivers:
        receiver.consume = lambda index, bucket, digests: None  # type: ignore[method-assign]
    manifest = sender.announce(policy.sent_outline(), 1)
    taken = [begin(receiver.take, manifest) for receiver in receivers]
    sender.stream(policy.sent_weights())
    for future, receiver in zip(taken, receivers, strict=True):
        future.result(300)
        assert receiver.intake.num_bytes == 2 * manifest.largest_bucket_bytes <= 2 * BUCKET_BYTES
        receiver.group.close()
    sender.close()


def peaks_of(model: Path, folder: Path) -> list[dict[str, int]]:
    """Of both ranks."""
    port, outputs = free_port("127.0.0.1"), [folder.parent / f"{folder.name}_{rank}.json" for rank in (0, 1)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.integration.test_memory_slope"]
            + [str(each) for each in (model, folder, rank, port, output)],
            cwd=Path(__file__).parents[2],
        )
        for rank, output in enumerate(outputs)
    ]
    try:
        assert [process.wait(timeout=600) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [json.loads(output.read_text()) for output in outputs]


def planned(shape: ModelShape, phase: str) -> int:
    """Of one of two ranks."""
    asked = recipe(
        cluster={"learner_gpus": 2},
        rollout={"max_model_tokens": 32, "sampling": {"max_tokens": 16}},
        learner={"compute": {"tokens_per_microbatch": 64}},
    )
    parts = learner_parts(asked, shape, checkpointing=False, offload=False, num_tokens=16)
    return parts["fp32 masters"] if phase == "start" else sum(parts.values())


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ModelShape, list[dict[str, int]]]]:
    folder = tmp_path_factory.mktemp("slope")
    found = {}
    for name, layers in LAYERS.items():
        model = build_tiny_model(folder / name, hidden_size=512, head_dim=64, num_layers=layers, tied=False)
        found[name] = read_shape(model), peaks_of(model, folder / f"{name}_checkpoint")
    return found


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("rank", [0, 1])
def test_the_learners_bytes_a_parameter_are_those_of_the_plan(
    rank: int, phase: str, measured: dict[str, tuple[ModelShape, list[dict[str, int]]]]
) -> None:
    (small, few), (large, many) = measured["small"], measured["large"]
    more = large.num_parameters - small.num_parameters
    slope = (many[rank][phase] - few[rank][phase]) / more
    expected = (planned(large, phase) - planned(small, phase)) / more
    print(f"{phase}, rank {rank}: {slope:.2f} bytes a parameter, planned {expected:.2f}")
    assert slope == pytest.approx(expected, rel=TOLERANCE)


def test_an_engines_bytes_a_parameter_are_those_of_the_plan(
    measured: dict[str, tuple[ModelShape, list[dict[str, int]]]],
) -> None:
    small, large = (measured[name][0] for name in LAYERS)
    more = large.num_parameters - small.num_parameters
    for loading, expected in (("streamed", 0.0), ("staged", 2.0)):
        asked = recipe(rollout={"weight_loading": loading})
        parts = [engine_parts(asked, shape)["staging"] for shape in (small, large)]
        assert (parts[1] - parts[0]) / more == pytest.approx(expected, abs=0.01)
    sizes = []
    for shape in (small, large):
        sender = WeightSender(torch.bfloat16)
        values = torch.zeros(shape.num_parameters // 512, 512)
        staging = StagingBuffer()
        staging.lay_out(sender.prepare([("weights", values)], 1))
        sizes.append(staging.memory.numel())
    assert (sizes[1] - sizes[0]) / more == pytest.approx(2.0, rel=TOLERANCE)


def main() -> None:
    """One rank, in its own process."""
    model, folder, rank, port, output = sys.argv[1:]
    peaks = measure(Path(model), Path(folder), int(rank), int(port))
    Path(output).write_text(json.dumps(peaks))


if __name__ == "__main__":
    main()
