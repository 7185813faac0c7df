"""A pipeline's `dtype: auto`: one for all stages, and the same when it goes on elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rayzero.services.pipeline.directory import PipelineDirectory
from rayzero.services.pipeline.fingerprints import fingerprints
from rayzero.services.pipeline.loading import LoadedPipeline, load_pipeline
from rayzero.services.pipeline.precision import settled
from rayzero.services.planning import machine
from tests.unit.services.pipeline.kit import PIPELINE, write

ON_CPU = ["dtype=auto", "recipe.rollout.device=cpu"]


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /proc/cpuinfo."""
    file = tmp_path / "cpuinfo"
    file.write_text("flags\t\t: fpu sse avx2\n")
    monkeypatch.setattr(machine, "CPU_INFO", file)
    return file


def dtypes(loaded: LoadedPipeline) -> set[str]:
    return {recipe.model.dtype for recipe in loaded.recipes.values()}


def test_it_is_one_for_all_stages(cpu: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = settled(load_pipeline(write(tmp_path), ON_CPU), say=said.append)
    assert dtypes(found) == {found.pipeline.dtype} == {found.content["dtype"]} == {"float32"}
    assert said == ["computes in float32 (dtype: auto)"]
    mixed = load_pipeline(write(tmp_path), [*ON_CPU, "stages.reasoning.recipe.rollout.device=cuda"])
    assert dtypes(settled(mixed)) == {"float32"}, "one stage on CPUs without bfloat16"


def test_it_goes_on_in_what_it_began_in(cpu: Path, tmp_path: Path) -> None:
    first = settled(load_pipeline(write(tmp_path), ON_CPU))
    directory = PipelineDirectory(tmp_path / "run")
    directory.prepare(dict(first.content))
    directory.release()
    cpu.write_text("flags\t\t: avx512_bf16\n")
    again = settled(load_pipeline(write(tmp_path), ON_CPU), PipelineDirectory(tmp_path / "run"))
    assert dtypes(again) == {"float32"}
    assert fingerprints(again.graph, again.recipes) == fingerprints(first.graph, first.recipes), "nothing runs again"
    assert dtypes(settled(load_pipeline(write(tmp_path), ON_CPU))) == {"bfloat16"}


def test_a_run_that_was_begun_before_there_was_auto_is_in_bfloat16(cpu: Path, tmp_path: Path) -> None:
    text = PIPELINE.replace("dtype: float32\n", "")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pipeline.yaml").write_text(yaml.safe_dump({"name": "r1"}))
    loaded = load_pipeline(write(tmp_path, text), ON_CPU[1:])
    assert dtypes(settled(loaded, PipelineDirectory(tmp_path / "run"))) == {"bfloat16"}
