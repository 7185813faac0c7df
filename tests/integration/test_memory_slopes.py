"""What one more parameter costs in memory, as the plan says and as it is: two models of one width, 19 M and 76 M
parameters, at start, update, sync, checkpoint and resume, at both ends. What does not grow with the model cancels."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rayzero.learner.broadcast.sender import WeightSender
from rayzero.learner.model.policy import Policy
from rayzero.learner.model.ranks import ONE_RANK, Ranks, join, leave
from rayzero.learner.update import checkpoint
from rayzero.learner.update.checkpoint import load_learner, save_learner
from rayzero.learner.update.learner import Learner
from rayzero.rollout_workers import engine_process
from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.environment import engine_environment
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.planning.memory_plan import engine_parts, learner_parts
from rayzero.services.planning.model_shape import ModelShape, read_shape
from rayzero.services.schema.addresses import free_port
from rayzero.services.schema.broadcast import wire
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.weights import Rendezvous
from tests import gloo_for_nccl
from tests.models import character_tokenizer
from tests.resident import ALLOCATION, Peak, resident_bytes
from tests.unit.learner.kit import make_group
from tests.unit.services.planning.test_memory_plan import recipe

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

NUM_LAYERS = (6, 24)
WIDTH = 512
TOLERANCE = 0.1
SETTINGS = {
    "optimizer": {"learning_rate": 1e-3}, "compute": {"tokens_per_microbatch": 20},
    "watch": {"kl_warn": 1e6, "kl_stop": 1e6, "ess_warn": 0, "ess_stop": 0},
}  # fmt: skip
ENGINE = RolloutSettings(
    kv_cache_bytes=2**26, max_model_tokens=128, max_num_seqs=4, num_threads=1, sampling={"max_tokens": 16}
)
DEADLINE_S = 120.0
BUCKET_BYTES = 2**22

Held = dict[str, int]
"""Bytes by phase."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The smaller one first."""
    return [build(tmp_path_factory.mktemp("models") / str(layers), layers) for layers in NUM_LAYERS]


def build(path: Path, num_layers: int) -> Path:
    tokenizer = character_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=num_layers,
        num_attention_heads=WIDTH // 64,
        num_key_value_heads=WIDTH // 128,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,  # its embedding would be 0, whose gradient grows a thousand times a layer
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def slopes(models: list[Path], held: list[Held]) -> dict[str, float]:
    """Bytes a parameter, by phase."""
    small, large = (read_shape(model).num_parameters for model in models)
    return {phase: (held[1][phase] - held[0][phase]) / (large - small) for phase in held[0]}


def planned(models: list[Path], parts: Callable[[ModelShape], dict[str, int]]) -> dict[str, float]:
    """The same of the plan, by part."""
    small, large = map(read_shape, models)
    before, after = parts(small), parts(large)
    return {name: (after[name] - before[name]) / (large.num_parameters - small.num_parameters) for name in before}


def run_learner(model: Path, ranks: Ranks, folder: Path) -> Held:
    """A start, two updates, a sync, a checkpoint, and a resume from it in the same process."""
    torch.set_num_threads(1)
    checkpoint.PART_BYTES = BUCKET_BYTES
    settings, before, held = LearnerSettings.model_validate(SETTINGS), resident_bytes(), Held()

    def watched(phase: str, work: Callable[[], Any]) -> Any:
        gc.collect()
        with Peak() as peak:
            done = work()
        held[phase] = peak.num_bytes - before
        return done

    def start() -> Learner:
        policy = Policy(model, dtype="bfloat16", compute=settings.compute, ranks=ranks)
        return Learner(policy, settings, num_updates=5, max_completion_tokens=16)

    def sync() -> None:
        if ranks.world_size == 1:
            sender.prepare(learner.policy.sent_weights(), 1)
            return
        manifest = sender.announce(learner.policy.sent_outline(), 1)
        tensors = learner.policy.sent_weights()
        for bucket in range(len(manifest.bucket_bytes) if ranks.rank == 0 else 0):
            sender._stream.fill(bucket, tensors)
        for _ in tensors:
            pass

    sender = WeightSender(torch.bfloat16, bucket_bytes=BUCKET_BYTES)
    groups = [make_group(np.random.default_rng(0), [5, 7, 1, 1], [1, 0, 1, 0], group_id=0)]
    learner = watched("start", start)
    learner.update(groups, 1)
    watched("sync", sync)
    watched("update", lambda: learner.update(groups, 2))
    watched("checkpoint", lambda: save_learner(learner, folder))
    learner = None
    watched("resume", lambda: load_learner(start(), folder))
    return held


def learner_in_processes(model: Path, num_ranks: int, folder: Path) -> list[Held]:
    """Of each rank."""
    folder.mkdir()
    command = [
        sys.executable,
        "-m",
        "tests.integration.test_memory_slopes",
        str(model),
        str(folder),
        str(free_port("127.0.0.1")),
    ]
    processes = [
        subprocess.Popen(
            [*command, str(num_ranks), str(rank)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env=os.environ | ALLOCATION,
        )
        for rank in range(num_ranks)
    ]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * num_ranks
    return [json.loads(output.splitlines()[-1]) for output in outputs]


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_learners_memory_grows_as_planned(
    num_ranks: int, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(wire.BUCKET_BYTES, "cuda", BUCKET_BYTES)  # that of the published size is a whole model
    settings = recipe(
        cluster={"learner_gpus": num_ranks},
        learner={"compute": {"tokens_per_microbatch": 20}},
        rollout={"max_model_tokens": 32, "sampling": {"max_tokens": 16}},
    )
    plan = planned(models, lambda shape: learner_parts(settings, shape, False, False))
    ranks = zip(*(learner_in_processes(model, num_ranks, tmp_path / model.name) for model in models), strict=True)
    for held in ranks:
        found = slopes(models, list(held))
        found["checkpoint"] -= 2 * (num_ranks > 1)  # the file that rank 0 writes is put together on the host
        assert found["update"] == pytest.approx(sum(plan.values()), rel=TOLERANCE), (found, plan)
        assert max(found.values()) <= (1 + TOLERANCE) * sum(plan.values()), (found, plan)


async def run_engine(model: Path, loading: str) -> Held:
    """A start, and two syncs beside it over what stands for NCCL."""
    settings = ENGINE.model_copy(update={"weight_loading": loading})
    engine = RolloutEngine(
        "rollout-0", EngineSpec(model_path=str(model), dtype="bfloat16", settings=settings), deadline_s=DEADLINE_S
    )
    policy = LlamaForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    sender = WeightSender(torch.bfloat16, deadline_s=DEADLINE_S, bucket_bytes=BUCKET_BYTES, share_memory=True)
    await engine.start()
    try:
        pids = [child.pid for child in psutil.Process().children(recursive=True) if child.name().startswith("VLLM::")]
        rendezvous = sender.open(1)
        await asyncio.gather(engine.join_transfer(rendezvous, 1), asyncio.to_thread(sender.accept))
        held = Held(start=resident_bytes(pids))
        for version in (1, 2):
            with Peak(pids) as peak:
                if loading == "streamed":
                    manifest = sender.announce([(name, p.shape) for name, p in policy.named_parameters()], version)
                    sending = asyncio.to_thread(sender.stream, policy.named_parameters())
                else:
                    manifest = sender.prepare(policy.named_parameters(), version)
                    sending = asyncio.to_thread(sender.broadcast)
                await asyncio.gather(engine.receive_weights(manifest), sending)
                await engine.apply_weights(version)
            held["sync"] = peak.num_bytes
        return held
    finally:
        sender.close()
        await engine.shutdown()


@pytest.fixture
def nccl_is_gloo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(gloo_for_nccl, "MESSAGE_BYTES", 2**22)
    monkeypatch.setenv("RAYZERO_TEST_MESSAGE_BYTES", str(2**22))
    gloo_for_nccl.install_sender(monkeypatch.setattr)
    extension = {"worker_extension_cls": "tests.gloo_for_nccl_engine.Receiver"}
    arguments = engine_process.engine_arguments
    monkeypatch.setattr(engine_process, "engine_arguments", lambda spec: arguments(spec) | extension)
    for name, value in (engine_environment(ENGINE) | ALLOCATION).items():
        monkeypatch.setenv(name, value)
    yield
    gloo_for_nccl.STORES.clear()


@pytest.mark.parametrize("loading", ["staged", "streamed"])
@pytest.mark.usefixtures("nccl_is_gloo")
def test_an_engines_memory_grows_as_planned(loading: str, models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wire.BUCKET_BYTES, "cuda", BUCKET_BYTES)
    rollout = {"weight_loading": loading, "max_model_tokens": 128, "max_num_seqs": 4, "kv_cache_bytes": 2**26}
    settings = recipe(rollout=rollout | {"sampling": {"max_tokens": 16}})
    plan = planned(models, lambda shape: engine_parts(settings, shape))
    found = slopes(models, [asyncio.run(run_engine(model, loading)) for model in models])
    assert found["sync"] == pytest.approx(sum(plan.values()), rel=TOLERANCE), (found, plan)
    assert found["start"] == pytest.approx(plan["weights"], rel=TOLERANCE), (found, plan)


def main() -> None:
    """One rank, in its own process."""
    model, folder, port, num_ranks, rank = sys.argv[1:]
    meeting = Rendezvous(host="127.0.0.1", port=int(port), world_size=int(num_ranks))
    ranks = ONE_RANK if num_ranks == "1" else join(int(rank), meeting, "cpu", deadline_s=60)
    print(json.dumps(run_learner(Path(model), ranks, Path(folder))))
    if num_ranks != "1":
        leave()


if __name__ == "__main__":
    main()
