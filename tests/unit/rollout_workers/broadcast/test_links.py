"""What an engine maps of the learner's: let go of before the next is mapped."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch

from rayzero.rollout_workers.broadcast import gpu_links, links
from rayzero.rollout_workers.broadcast.buffer import StagingBuffer
from rayzero.services.schema.broadcast.wire import SharedBufferName
from rayzero.services.schema.weights import TensorSpec, WeightManifest

CPU = torch.device("cpu")


class Store:
    """Says of every key the same."""

    def __init__(self) -> None:
        self.value = b""

    def wait(self, keys: list[str], timeout: Any) -> None:
        pass

    def get(self, key: str) -> bytes:
        return self.value


def manifest(version: int, num_bytes: int) -> WeightManifest:
    spec = TensorSpec(
        name="w", dtype="uint8", shape=(num_bytes,), bucket=0, offset_bytes=0, num_bytes=num_bytes, checksum=""
    )
    return WeightManifest(policy_version=version, tensors=(spec,), bucket_bytes=(num_bytes,))


def shared_name(label: bytes, num_bytes: int) -> bytes:
    return str(SharedBufferName(process=1, descriptor=2, label=label.decode(), num_bytes=num_bytes)).encode()


@pytest.mark.parametrize("kind", ["ipc", "memory"])
def test_the_old_mapping_is_gone_before_the_new_one_is_made(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store: Any = Store()
    staging, mapped = StagingBuffer(), list[Any]()

    def map_it(name: Any, device: torch.device = CPU) -> torch.Tensor:
        assert not any(storage() is not None for storage in mapped), "two are mapped at a time"
        memory = torch.zeros(64 * (1 + len(mapped)), dtype=torch.uint8)
        mapped.append(weakref.ref(memory.untyped_storage()))
        return memory

    monkeypatch.setattr(gpu_links if kind == "ipc" else links, "_map", map_it)
    link: Any = gpu_links.IpcReceiver(store, 1, CPU) if kind == "ipc" else links.MemoryReceiver(store)
    for version, (label, num_bytes) in enumerate([(b"first", 64), (b"first", 64), (b"second", 128)]):
        store.value = label if kind == "ipc" else shared_name(label, num_bytes)
        assert list(link.take(manifest(version, num_bytes), staging, 1.0, keep=False)) == [0]
        assert dict(staging.tensors())["w"].numel() == num_bytes
    assert len(mapped) == 2
