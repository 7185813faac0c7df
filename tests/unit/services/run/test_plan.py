"""`rayzero check` where nothing but rayzero itself is installed."""

from __future__ import annotations

import importlib.util
import json
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from rayzero.services.cli.options import DEMO
from rayzero.services.run import plan
from rayzero.services.schema.config import rollout


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no engine and no GPU."""

    def find_spec(name: str, *_: Any) -> None:
        return None

    def distribution(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(rollout, "distribution", distribution)
    monkeypatch.setattr(plan, "count_gpus", lambda: 0)


@pytest.mark.usefixtures("bare")
def test_the_demo_is_planned_for_cpus_where_no_engine_says_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    plan.check(DEMO, [], as_json=True)
    assert json.loads(capsys.readouterr().out)["memory"] is None


@pytest.mark.usefixtures("bare")
def test_gpus_that_are_named_are_planned_for(capsys: pytest.CaptureFixture[str]) -> None:
    plan.check(DEMO, ["cluster.gpu_memory_bytes=85899345920"], as_json=True, gpus=2)
    assert json.loads(capsys.readouterr().out)["memory"] is not None
