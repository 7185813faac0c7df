"""`model.dtype: auto`: what it is on which machine, what a run that goes on keeps, and where it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.planning import machine
from rayzero.services.run.precision import settled
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.store.run_directory import RunDirectory, choose_run_directory
from tests.fakes import make_recipe

WITHOUT, WITH = "fpu sse avx2", "fpu avx512f avx512_bf16"


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /proc/cpuinfo."""
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


def recipe(dtype: str = "auto", device: str = "cpu") -> Recipe:
    content = make_recipe().model_dump(mode="json")
    content["model"]["dtype"] = dtype
    content["rollout"]["device"] = device
    return Recipe.model_validate(content)


@pytest.mark.parametrize(
    ("flags", "device", "chosen", "why"),
    [
        (WITHOUT, "cpu", "float32", "has no instructions for bfloat16"),
        (WITH, "cpu", "bfloat16", "has instructions for it"),
        ("fpu amx_bf16 amx_tile", "cpu", "bfloat16", "has instructions for it"),
        (WITHOUT, "cuda", "bfloat16", "on GPUs"),
    ],
)
def test_auto_is_what_the_machine_is_fast_in(cpu: Path, flags: str, device: str, chosen: str, why: str) -> None:
    cpu.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    said: list[str] = []
    assert settled(recipe(device=device), said.append, num_gpus=1).model.dtype == chosen
    assert len(said) == 1 and chosen in said[0] and why in said[0]


def test_what_is_named_is_kept_and_nothing_said(cpu: Path) -> None:
    cpu.write_text(f"flags\t\t: {WITHOUT}\n")
    said: list[str] = []
    assert settled(recipe("bfloat16"), said.append).model.dtype == "bfloat16"
    assert not said


def test_a_run_goes_on_in_what_it_began_in_on_another_machine(cpu: Path, tmp_path: Path) -> None:
    cpu.write_text(f"flags\t\t: {WITH}\n")
    directory = RunDirectory(tmp_path / "fake")
    directory.prepare(settled(recipe()))
    (directory.checkpoints / "update_000001").mkdir()
    directory.release()

    cpu.write_text(f"flags\t\t: {WITHOUT}\n")
    chosen = choose_run_directory(recipe(), tmp_path, None, fresh=False)
    assert chosen.resume and chosen.directory.path == directory.path and not chosen.notes
    said: list[str] = []
    kept = settled(recipe(), said.append, chosen.directory.recipe())
    assert kept.model.dtype == "bfloat16" and "as the run began" in said[0]
    assert settled(recipe()).model.dtype == "float32"
