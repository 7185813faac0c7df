"""A CUDA handle on its way from the learner to an engine: the arguments that torch gave, as data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.multiprocessing import reductions

from rayzero.learner.broadcast import gpu_links as sending
from rayzero.rollout_workers.broadcast import gpu_links as receiving

GIVEN = (
    torch.Tensor, torch.Size([7]), (1,), 2, torch.TypedStorage, torch.uint8, 3, b"\x00handle\xff", 4096, 512, False,
    b"\x00counter", 5, b"", True,
)  # fmt: skip
"""Of `rebuild_cuda_tensor`: the order is torch's."""
DEVICE_AT = 6


def test_what_was_exported_is_what_is_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = list[Any]()
    monkeypatch.setattr(reductions, "reduce_tensor", lambda memory: (reductions.rebuild_cuda_tensor, GIVEN))
    handle = sending._export(torch.zeros(7, dtype=torch.uint8))
    monkeypatch.setattr(reductions, "rebuild_cuda_tensor", lambda *arguments: taken.extend(arguments))
    receiving._map(handle, torch.device("cuda", 1))
    assert taken[DEVICE_AT] == 1, "the GPU's number in the process that maps it"
    assert tuple(taken[:DEVICE_AT]) + tuple(taken[DEVICE_AT + 1 :]) == GIVEN[:DEVICE_AT] + GIVEN[DEVICE_AT + 1 :]


def test_torch_still_takes_these_arguments() -> None:
    code = reductions.rebuild_cuda_tensor.__code__
    assert code.co_varnames[: code.co_argcount] == (
        "tensor_cls", "tensor_size", "tensor_stride", "tensor_offset", "storage_cls", "dtype", "storage_device",
        "storage_handle", "storage_size_bytes", "storage_offset_bytes", "requires_grad", "ref_counter_handle",
        "ref_counter_offset", "event_handle", "event_sync_required",
    )  # fmt: skip


@pytest.mark.parametrize("handle", [b"\x80\x04K\x01.", b"", b"{}", b"[1]"])
def test_what_is_no_handle_is_refused(handle: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        receiving._map(handle, torch.device("cuda", 0))
