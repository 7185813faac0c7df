"""Memory shared with engines on the learner's GPU: outside expandable segments, and freed when it is replaced."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rayzero.learner.broadcast import gpu_links
from rayzero.learner.broadcast.buffer import SendBuffer
from rayzero.learner.broadcast.gpu_memory import mappable_memory, without_expandable_segments
from rayzero.services.schema.broadcast.transport import Peer


@pytest.mark.parametrize(
    ("settings", "without"),
    [
        ("", ""),
        ("max_split_size_mb:512", ""),
        ("expandable_segments:False", ""),
        ("expandable_segments:True", "expandable_segments:False"),
        ("expandable_segments:true, max_split_size_mb:512", "max_split_size_mb:512,expandable_segments:False"),
        (
            "roundup_power2_divisions:[256:1,512:2],expandable_segments:True",
            "roundup_power2_divisions:[256:1,512:2],expandable_segments:False",
        ),
    ],
)
def test_only_one_option_is_changed(settings: str, without: str) -> None:
    assert without_expandable_segments(settings) == without


@pytest.fixture
def allocator() -> Iterator[Any]:
    """torch's own: it takes settings where there is no GPU, too."""
    before = torch._C._accelerator_getAllocatorSettings()
    yield torch._C
    torch._C._accelerator_setAllocatorSettings(before)


def test_the_option_is_off_while_memory_is_taken_and_on_again_after_it(allocator: Any) -> None:
    asked = "max_split_size_mb:512,expandable_segments:True"
    allocator._accelerator_setAllocatorSettings(asked)
    with pytest.raises(MemoryError), mappable_memory():
        assert allocator._accelerator_getAllocatorSettings() == "max_split_size_mb:512,expandable_segments:False"
        raise MemoryError
    assert allocator._accelerator_getAllocatorSettings() == asked


def test_a_gpus_send_buffer_is_taken_so(monkeypatch: pytest.MonkeyPatch, allocator: Any) -> None:
    allocator._accelerator_setAllocatorSettings("expandable_segments:True")
    found: list[str] = []

    def zeros(size: int, **options: Any) -> torch.Tensor:
        found.append(allocator._accelerator_getAllocatorSettings())
        return torch.empty(size, dtype=torch.uint8)

    monkeypatch.setattr(torch, "zeros", zeros)
    SendBuffer(torch.float32, 100)._make_room(64, torch.device("cuda:0"))
    assert found == ["expandable_segments:False"]


class Store:
    def __init__(self) -> None:
        self.content: dict[str, Any] = {}

    def set(self, key: str, value: Any) -> None:
        self.content[key] = value


def test_the_sender_exports_a_buffer_once_and_keeps_none_that_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[int] = []

    def export(memory: torch.Tensor) -> bytes:
        exported.append(memory.numel())
        return b"handle %d" % memory.numel()

    monkeypatch.setattr(gpu_links, "_export", export)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: torch.Stream(device="cpu"))
    store: Any = Store()
    link = gpu_links.IpcSender(store, {1: Peer(host="a", process=1), 2: Peer(host="a", process=2)})
    buffer = SendBuffer(torch.float32, 100)
    buffer._device = torch.zeros(10, dtype=torch.uint8)
    for version in (1, 2):
        buffer.policy_version = version
        link.send(buffer)
    assert exported == [10, 10], "one for each receiver"
    assert store.content["ipc/2/2"] == b"handle 10"
    replaced = weakref.ref(buffer._device)
    buffer._device = torch.zeros(20, dtype=torch.uint8)
    gc.collect()
    assert replaced() is None
    link.send(buffer)
    assert exported == [10, 10, 20, 20]
