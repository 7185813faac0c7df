"""Which GPUs the process that trains a reward model sees: the one that is reserved for it, or none."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rayzero.services.pipeline import reward_model
from rayzero.services.pipeline.context import StageContext
from rayzero.services.schema.config.pipeline import RewardModelStage
from rayzero.services.schema.devices import VISIBLE_DEVICES
from tests.unit.services.planning.test_memory_plan import recipe


class Session:
    """Ray, which is not needed here."""

    def __init__(self, _: Any) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


def context(folder: Path, device: str) -> StageContext:
    settings = RewardModelStage.model_validate(
        {"model": "base", "pairs": {"kind": "jsonl", "path": "pairs.jsonl"}, "num_updates": 1}
    )
    return StageContext(
        name="helpful",
        settings=settings,
        recipe=recipe(rollout={"device": device}),
        models={"base": folder},
        directory=folder,
        work=folder,
        console=Console(file=io.StringIO()),
    )


@pytest.mark.parametrize(("device", "here", "seen"), [("cpu", "3", ""), ("cuda", "3", "3"), ("cuda", "", "")])
async def test_the_process_sees_what_is_reserved(
    device: str, here: str, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved: list[float] = []

    @contextlib.asynccontextmanager
    async def one_gpu(deadline_s: float) -> AsyncIterator[str]:
        reserved.append(deadline_s)
        yield here

    async def spawn(*command: str, env: dict[str, str], **_: Any) -> asyncio.subprocess.Process:
        assert env[VISIBLE_DEVICES] == seen
        raise ProcessLookupError

    monkeypatch.setenv(VISIBLE_DEVICES, "0,1,2,3")
    monkeypatch.setattr(reward_model, "one_gpu_here", one_gpu)
    monkeypatch.setattr(reward_model, "RaySession", Session)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", spawn)
    stage = context(tmp_path, device)
    with pytest.raises(ProcessLookupError):
        await reward_model._train(stage, {"seed": 0})
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert spec == {"seed": 0, "device": "cuda" if seen else "cpu"}
    assert len(reserved) == (device == "cuda")
    said = stage.console.file.getvalue()  # type: ignore[attr-defined]
    assert ("trained on CPUs, slowly" in said) == (device == "cuda" and not here)
