"""Adapters become weights at the receiver: the learner's own, to the bit; on the base, never on the merge before."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft  # noqa: F401  # its own import warns of deprecations

from rayzero.learner.broadcast.sender import WeightSender
from rayzero.learner.model.policy import Policy
from rayzero.rollout_workers.broadcast.adapters import AdapterMerge, BaseWeights, parts
from rayzero.rollout_workers.broadcast.buffer import StagingBuffer, check_manifest, checkpoint_shapes
from rayzero.services.schema.config.learner import LoraSettings
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.weights import WeightManifest
from tests.unit.learner.kit import build_model

FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
CPU = torch.device("cpu")
LAYER = "model.layers.1.self_attn"
SPLIT = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")


def layer_names(model: Path) -> set[str]:
    """As the engine's modules are called."""
    names = {name.rpartition(".")[0] for name in checkpoint_shapes(model)}
    fused = {part: whole for whole, several in FUSED.items() for part in several}
    return {
        f"{parent}.{fused.get(leaf, leaf)}".lstrip(".") for parent, _, leaf in (name.rpartition(".") for name in names)
    }


class Wire:
    """A policy with adapters, its sender, and a receiver without an engine."""

    def __init__(self, model: Path, dtype: str = "float32", targets: tuple[str, ...] = (*SPLIT, "o_proj")) -> None:
        lora = LoraSettings(rank=3, alpha=8, target_modules=targets)
        self.policy = Policy(model, dtype=dtype, lora=lora)
        self.sender = WeightSender(self.policy.dtype, bucket_bytes=1000)
        self.expected, self.dtype = checkpoint_shapes(model), dtype
        base = BaseWeights(model, self.policy.dtype)
        self.base = {name: base.read(name, CPU) for name in base.names}
        self.merge = AdapterMerge(base, layer_names(model), FUSED)
        self.staging = StagingBuffer()
        self.engine = {name: tensor.clone() for name, tensor in self.base.items()}
        self.loaded: list[str] = []
        self.version = 0

    @torch.no_grad()
    def train(self) -> None:
        torch.manual_seed(self.version)
        for _, parameter in self.policy.named_parameters():
            parameter.copy_(torch.randn_like(parameter))

    def prepare(self) -> WeightManifest:
        self.version += 1
        return self.sender.prepare(self.policy.sent_weights(), self.version, self.policy.adapter_scaling)

    def sync(self) -> WeightManifest:
        manifest = self.prepare()
        self.receive(manifest)
        names = self.merge.names(manifest)
        self.loaded = names
        self.engine |= dict(self.merge.merged(names, manifest, self.staging.tensors(), CPU))
        self.merge.loaded(manifest)
        return manifest

    def receive(self, manifest: WeightManifest) -> None:
        check_manifest(manifest, self.expected, self.dtype)
        for index, bucket in enumerate(self.staging.lay_out(manifest)):
            bucket.copy_(self.sender._buffer.host_buckets[index])
        for index in range(len(manifest.bucket_bytes)):
            self.staging.verify_bucket(index)

    def assert_served(self) -> None:
        weights = dict(self.policy.named_weights())
        assert weights.keys() == self.engine.keys()
        for name, weight in weights.items():
            assert torch.equal(self.engine[name], weight), name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_merged_weights_are_the_learners_to_the_bit_sync_after_sync(
    architecture: str, dtype: str, tmp_path: Path
) -> None:
    wire = Wire(build_model(tmp_path, architecture), dtype)
    for _ in range(3):  # the merge before is never added to
        wire.train()
        manifest = wire.sync()
        wire.assert_served()
    assert not torch.equal(wire.engine[f"{LAYER}.q_proj.weight"], wire.base[f"{LAYER}.q_proj.weight"])
    assert manifest.num_bytes < 0.5 * sum(tensor.nbytes for tensor in wire.base.values())


def test_what_shares_a_layer_of_the_engine_is_loaded_with_it_and_nothing_else(tmp_path: Path) -> None:
    wire = Wire(build_model(tmp_path, "qwen2"), targets=("q_proj", "down_proj"))
    wire.train()
    wire.sync()
    wire.assert_served()
    loaded = [name.removeprefix("model.layers.1.") for name in wire.loaded if name.startswith("model.layers.1.")]
    assert sorted(loaded) == sorted(
        ["mlp.down_proj.weight"] + [f"self_attn.{part}_proj.{kind}" for part in "qkv" for kind in ("bias", "weight")]
    )
    assert all(name.startswith("model.layers.") for name in wire.loaded)
    assert wire.merge.layers(wire.loaded) == sorted(
        f"model.layers.{index}.{layer}" for index in (0, 1) for layer in ("mlp.down_proj", "self_attn.qkv_proj")
    )


def test_whole_weights_of_another_source_are_taken_back(model: Path) -> None:
    wire = Wire(model)
    for tensor in wire.engine.values():
        tensor.add_(1.0)
    wire.merge.loaded(WeightManifest(policy_version=0, tensors=(), bucket_bytes=()))
    wire.train()
    wire.sync()
    wire.assert_served()
    assert set(wire.loaded) == set(wire.base)
    wire.sync()
    assert "model.norm.weight" not in wire.loaded, "once is enough"


def test_an_adapter_that_comes_no_more_is_taken_off(model: Path) -> None:
    wire = Wire(model)
    wire.train()
    wire.sync()
    less = [(name, tensor) for name, tensor in wire.policy.sent_weights() if "o_proj" not in name]
    manifest = wire.sender.prepare(less, 2, wire.policy.adapter_scaling)
    assert f"{LAYER}.o_proj.weight" in wire.merge.names(manifest)


def test_an_engine_with_other_names_is_given_everything(model: Path) -> None:
    wire = Wire(model)
    wire.merge = AdapterMerge(BaseWeights(model, torch.float32), {"language_model.layers"}, FUSED)
    wire.train()
    wire.sync()
    wire.assert_served()
    assert set(wire.loaded) == set(wire.base)
    assert wire.merge.layers(wire.loaded) is None


def test_adapters_that_do_not_fit_are_refused_by_name(model: Path) -> None:
    wire = Wire(model)
    manifest = wire.prepare()

    def refused(tensors: list[tuple[str, torch.Tensor]], message: str) -> None:
        with pytest.raises(WeightSyncError, match=message):
            check_manifest(wire.sender.prepare(tensors, 9, 2.0), wire.expected, "float32")

    sent = [(name, tensor.clone()) for name, tensor in wire.policy.sent_weights()]
    (low_name, low), (high_name, high), *others = sent
    weight = low_name.removesuffix(".lora_A")
    refused([(low_name, low), *others], f"halves of adapters are missing from the manifest: {high_name}$")
    refused([*sent, ("model.nowhere.lora_A", low)], "adapters of what is no weight of this model: model.nowhere$")
    refused([*sent, ("model.norm.weight", low)], r"whole weights among adapters: model\.norm\.weight$")
    refused([(low_name, low[:, :-1]), (high_name, high), *others], f"adapter of {weight} has shapes")
    refused([(low_name, low[:-1]), (high_name, high), *others], f"adapter of {weight} has shapes")
    with pytest.raises(WeightSyncError, match="holds none"):
        check_manifest(replace(manifest, tensors=()), wire.expected, "float32")
    with pytest.raises(WeightSyncError, match=f"{low_name} comes as float32, the engine computes in bfloat16"):
        check_manifest(manifest, wire.expected, "bfloat16")
    with pytest.raises(WeightSyncError, match="missing from the manifest"):
        check_manifest(replace(manifest, adapter_scaling=None), wire.expected, "float32")


def test_a_flipped_bit_changes_nothing_and_the_next_sync_is_right(model: Path) -> None:
    wire = Wire(model)
    wire.train()
    wire.sync()
    before = {name: tensor.clone() for name, tensor in wire.engine.items()}
    manifest = wire.prepare()
    victim = manifest.tensors[5]
    wire.sender._buffer.host_buckets[victim.bucket][victim.offset_bytes] ^= 1
    with pytest.raises(WeightSyncError, match=f"bytes differ.*{victim.name}$"):
        wire.receive(manifest)
    assert all(torch.equal(wire.engine[name], before[name]) for name in before)
    wire.train()
    wire.sync()
    wire.assert_served()


def test_parts_hold_everything_once() -> None:
    tensors = [(str(index), torch.zeros(10)) for index in range(7)]
    made = list(parts(tensors, part_bytes=100))
    assert [list(part) for part in made] == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
