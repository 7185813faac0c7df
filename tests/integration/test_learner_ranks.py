"""Two learner ranks over gloo give what one rank gives: weights, figures, and checkpoints that either can read, with no
more than one whole tensor on a GPU at a time."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from rayzero.learner.model.policy import Policy
from rayzero.learner.model.ranks import ONE_RANK, Ranks, join, leave
from rayzero.learner.update import checkpoint
from rayzero.learner.update.checkpoint import load_learner, save_learner
from rayzero.learner.update.learner import Learner
from rayzero.learner.update.sft import SftTrainer
from rayzero.services.schema.addresses import free_port
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.messages import Group
from rayzero.services.schema.weights import Rendezvous
from tests.system import has_ipv6
from tests.unit.learner.kit import build_model, make_group, with_routing

PART_BYTES = 20_000
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "replayed": {"routing_replay": True},
    "everything": {
        "loss": {"name": "gspo"}, "kl": {"beta": 0.05, "refresh_every_updates": 2}, "inner_epochs": 2, "minibatches": 2,
    },
}  # fmt: skip


class Gathered:
    """What a rank put together, while it looked: in which dtypes, and how much of it was alive at once."""

    def __init__(self) -> None:
        self.dtypes: set[str] = set()
        self.num_bytes, self.peak_bytes, self.largest, self.alive_bytes = 0, 0, 0, 0
        self._alive: list[tuple[weakref.ref[torch.UntypedStorage], int]] = []

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count every shard that is put together meanwhile."""
        put_together = DTensor.full_tensor

        def counted(tensor: DTensor) -> torch.Tensor:
            whole = put_together(tensor)
            self.dtypes.add(str(whole.dtype))
            self.num_bytes += whole.nbytes
            self.largest = max(self.largest, whole.nbytes)
            self._alive.append((weakref.ref(whole.untyped_storage()), whole.nbytes))
            self.peak_bytes = max(self.peak_bytes, self._count())
            return whole

        DTensor.full_tensor = counted  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            DTensor.full_tensor = put_together  # type: ignore[method-assign]

        # gloo's own thread lets go of a collective's buffers a moment after the collective has returned.
        deadline = time.monotonic() + 5
        while self._count() and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.05)
        self.alive_bytes = self._count()

    def _count(self) -> int:
        return sum(num_bytes for storage, num_bytes in self._alive if storage() is not None)

    @property
    def figures(self) -> dict[str, Any]:
        """All but what is alive: for another process."""
        return {name: value for name, value in vars(self).items() if name != "_alive"}


def groups(update: int) -> list[Group]:
    rng = np.random.default_rng(update)
    return [
        make_group(rng, [5, 7, 0, 1], [1, 0, 1, 0], group_id=0),
        make_group(rng, [9, 2, 3, 1], [1, 0, 1, float("nan")], group_id=1, prompt_length=9),
        make_group(rng, [4, 4], [1, 1], group_id=2, prompt_length=2),
    ]


def routed(update: int) -> list[Group]:
    """The same from an engine that says which experts it chose."""
    rng = np.random.default_rng(update)
    return [with_routing(rng, group) for group in groups(update)]


def run(model: Path, recipe: str, dtype: str, ranks: Ranks, folder: Path, *, resume: bool) -> dict[str, Any]:
    """Three updates and a supervised step, a checkpoint in between; a resumed run starts from that checkpoint."""
    torch.set_num_threads(1)
    settings = LearnerSettings.model_validate({
        "optimizer": {"learning_rate": 1e-3}, "compute": {"tokens_per_microbatch": 20},
        "watch": {"kl_warn": 1e6, "kl_stop": 1e6, "ess_warn": 0, "ess_stop": 0}, **RECIPES[recipe],
    })  # fmt: skip
    of_update = routed if settings.routing_replay else groups
    policy = Policy(
        model, dtype=dtype, compute=settings.compute, ranks=ranks, routing_replay=settings.routing_replay
    )  # fmt: skip
    learner = Learner(policy, settings, num_updates=5, max_completion_tokens=16)
    checkpoint.PART_BYTES = PART_BYTES
    saved, sent = Gathered(), Gathered()
    if resume:
        with pytest.raises(FileNotFoundError):  # on every rank: the others would wait for the first
            load_learner(learner, folder / "nowhere")
        for kept in ("single", "sharded"):
            load_learner(learner, folder.parent / kept)
            save_learner(learner, again(folder.parent / kept, ranks.world_size))
        # The first rank alone reads.
        load_learner(learner, folder if ranks.rank == 0 else folder / "nowhere")
    else:
        learner.update(of_update(0), 1)
        with saved.watch():
            save_learner(learner, folder)
    figures = [dict(learner.update(of_update(update), update + 1).metrics) for update in (1, 2)]
    group = groups(0)[0]
    prompt, ids = group.prompt_token_ids, group.rollouts[0].completion.token_ids
    trainer = SftTrainer(policy, learner.optimizer, settings.compute, settings=settings.optimizer, num_updates=1)
    sft = trainer.step([(prompt, ids), (prompt[:2], ids[:3])], 0)
    with sent.watch():
        weights = {name: weight.float().numpy().copy() for name, weight in policy.sent_weights()}
    return {
        "figures": figures,
        "sft": dict(sft),
        "score": learner.score(prompt, ids),
        "weights": weights,
        "num_parameters": policy.num_parameters,
        "saved": saved.figures,
        "sent": sent.figures,
    }


def run_ranks(model: Path, recipe: str, dtype: str, folder: Path, *, resume: bool) -> list[dict[str, Any]]:
    """`run` in two processes; what each returned."""
    host = "::1" if recipe == "plain" and has_ipv6() else "127.0.0.1"
    outputs = [folder.parent / f"{folder.name}_{rank}.pkl" for rank in (0, 1)]
    arguments = [str(model), recipe, dtype, str(folder), str(int(resume)), host, str(free_port(host))]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.integration.test_learner_ranks", *arguments, str(rank), str(output)],
            cwd=Path(__file__).parents[2],
        )
        for rank, output in enumerate(outputs)
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [pickle.loads(output.read_bytes()) for output in outputs]


def again(folder: Path, num_ranks: int) -> Path:
    """Where so many ranks save what they have loaded from a checkpoint, without an update in between."""
    path = folder.parent / f"{folder.name}_again_by_{num_ranks}"
    path.mkdir(exist_ok=True)
    return path


def assert_bits_survive(folder: Path, num_ranks: int) -> None:
    """Masters, moments, reference, random state and counters of a checkpoint, through so many ranks and back to disk;
    and the model that engines load."""
    saved = flat(checkpoint.read_state(folder))
    found = flat(checkpoint.read_state(again(folder, num_ranks)))
    assert saved.keys() == found.keys()
    moments = [name for name in saved if name.endswith("/exp_avg_sq")]
    assert moments and all(saved[name].dtype == torch.float32 and saved[name].any() for name in moments)
    for name, value in saved.items():
        same = torch.equal(value, found[name]) if isinstance(value, torch.Tensor) else value == found[name]
        assert same and type(value) is type(found[name]), f"{name} differs"
    weights = [load_file(path / "model.safetensors") for path in (folder, again(folder, num_ranks))]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def flat(state: Any, path: str = "") -> dict[str, Any]:
    """Leaves of a nested state, by their path."""
    if isinstance(state, dict):
        return {key: leaf for name, value in state.items() for key, leaf in flat(value, f"{path}/{name}").items()}
    if isinstance(state, list | tuple):
        return flat(dict(enumerate(state)), path)
    return {path: state}


def assert_same(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> None:
    for name, weight in one["weights"].items():
        np.testing.assert_allclose(other["weights"][name], weight, rtol=tolerance, atol=tolerance, err_msg=name)
    np.testing.assert_allclose(other["score"], one["score"], rtol=10 * tolerance, atol=10 * tolerance)
    assert other["sft"] == pytest.approx(one["sft"], rel=10 * tolerance)
    for mine, theirs in zip(one["figures"], other["figures"], strict=True):
        # How often a prompt is laid, and so fed, changes with the number of micro-batches.
        packed = ("fed_tokens", "routing_differs")
        untimed = {name: value for name, value in mine.items() if not name.endswith("_s") and name not in packed}
        assert {name: theirs[name] for name in untimed} == pytest.approx(untimed, rel=100 * tolerance, abs=tolerance)


def assert_nothing_whole_is_kept(first: dict[str, Any], second: dict[str, Any], dtype: str) -> None:
    """Of a checkpoint and of a sync. Here the GPU is the host: rank 0 holds the weights while it writes them, then a
    part of the state at a time."""
    for rank in (first, second):
        assert rank["sent"]["dtypes"] == {f"torch.{dtype}"}, "cast before they are put together"
    reference = 4 if first["figures"][0].get("kl_reference") is not None else 0
    state_bytes = (12 + reference + (4 if dtype == "float32" else 2)) * first["num_parameters"]
    mine, theirs = first["saved"], second["saved"]
    assert mine["num_bytes"] == theirs["num_bytes"] == state_bytes
    weight_bytes = (4 if dtype == "float32" else 2) * first["num_parameters"]
    assert mine["peak_bytes"] <= max(weight_bytes, PART_BYTES + mine["largest"])
    assert theirs["peak_bytes"] <= 2 * theirs["largest"]
    assert theirs["alive_bytes"] == 0


@pytest.mark.parametrize(
    ("recipe", "dtype", "architecture", "tolerance"),
    [
        ("everything", "float32", "llama", 1e-4),
        ("plain", "bfloat16", "llama", 1e-2),
        # Five experts on two ranks: one has three of them, the other two.
        ("replayed", "float32", "mixtral", 1e-4),
    ],
)
def test_two_ranks_are_one(recipe: str, dtype: str, architecture: str, tolerance: float, tmp_path: Path) -> None:
    model = build_model(tmp_path / "model", architecture)
    single = run(model, recipe, dtype, ONE_RANK, tmp_path / "single", resume=False)
    first, second = run_ranks(model, recipe, dtype, tmp_path / "sharded", resume=False)
    assert_same(single, first, tolerance)
    assert_same(first, second, 1e-7)
    assert_nothing_whole_is_kept(first, second, dtype)
    alone = run(model, recipe, dtype, ONE_RANK, tmp_path / "sharded", resume=True)
    assert_same(single, alone, tolerance)
    if recipe != "everything":
        resumed, _ = run_ranks(model, recipe, dtype, tmp_path / "sharded", resume=True)
        assert_same(first, resumed, 0)
    else:
        resumed, _ = run_ranks(model, recipe, dtype, tmp_path / "single", resume=True)
        assert_same(single, resumed, tolerance)
    for kept in ("single", "sharded"):
        for num_ranks in (1, 2):
            assert_bits_survive(tmp_path / kept, num_ranks)


def main() -> None:
    """One rank, in its own process."""
    model, recipe, dtype, folder, resume, host, port, rank, output = sys.argv[1:]
    ranks = join(int(rank), Rendezvous(host=host, port=int(port), world_size=2), "cpu", deadline_s=60)
    result = run(Path(model), recipe, dtype, ranks, Path(folder), resume=bool(int(resume)))
    Path(output).write_bytes(pickle.dumps(result))
    leave()


if __name__ == "__main__":
    main()
