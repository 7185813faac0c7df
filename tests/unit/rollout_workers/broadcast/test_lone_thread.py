from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from rayzero.rollout_workers.broadcast.lone_thread import lone_thread


@pytest.mark.parametrize(("device", "chosen"), [("cuda:1", ["cuda:1"]), ("cpu", [])])
def test_it_computes_alone_and_on_its_own_gpu(device: str, chosen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: found.append((str(device), threading.get_ident())))
    thread = lone_thread("check", torch.device(device))
    mine = thread.submit(threading.get_ident).result()
    assert found == [(name, mine) for name in chosen]
    assert thread.submit(torch.get_num_threads).result() == 1
    thread.shutdown()
