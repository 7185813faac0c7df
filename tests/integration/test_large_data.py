"""A million rows: how long until the first update's prompts, and how much memory more than with ten thousand.

Seconds are of the CPU: on a machine with other work the clock says nothing of this.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

MOST = 890_000
"""Of a million at least: about a tenth is held out, where the file is read whole; the rest is drawn from."""

SCRIPT = """
import json, resource, sys, time
from rayzero.services.data.prompts import load_prompts
from rayzero.services.data.stream import PromptStream
from rayzero.services.schema.config.data import DataSettings

mix, held_out = load_prompts(DataSettings.model_validate({"train": [json.loads(sys.argv[1])]}), 64)
stream = PromptStream(mix, seed=0)
drawn = [stream.next().prompt_id for _ in range(512)]
seconds = time.process_time()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
counts = {"prompts": len(mix), "held_out": len(held_out)}
print(json.dumps({"seconds": seconds, "peak_mib": peak, "drawn": drawn, **counts}))
"""


def first_update(source: dict[str, Any]) -> dict[str, Any]:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, json.dumps(source)], capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(ran.stdout)
    print({key: value for key, value in measured.items() if key != "drawn"})
    return measured


@pytest.mark.parametrize("padding", [0, 300], ids=["read whole", "sampled"])
def test_a_million_rows_of_jsonl(tmp_path: Path, padding: int) -> None:
    for name, count in (("few", 10_000), ("many", 1_000_000)):
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            for n in range(count):
                file.write(f'{{"prompt": "What is {n} + 7?", "answer": "{n + 7}", "more": "{"x" * padding}"}}\n')
    few = first_update({"kind": "jsonl", "path": str(tmp_path / "few.jsonl")})
    many = first_update({"kind": "jsonl", "path": str(tmp_path / "many.jsonl")})
    assert many["prompts"] >= MOST and many["held_out"] == 64 and len(set(many["drawn"])) == 512
    assert many["peak_mib"] - few["peak_mib"] <= 500
    assert many["seconds"] <= 10
    assert first_update({"kind": "jsonl", "path": str(tmp_path / "many.jsonl")})["drawn"] == many["drawn"]


def test_a_million_rows_of_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    for name, count in (("few", 10_000), ("many", 1_000_000)):
        numbers = [str(n) for n in range(count)]
        table = pa.table({"prompt": [f"What is {n} + 7?" for n in numbers], "answer": numbers})
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    few = first_update({"kind": "parquet", "path": str(tmp_path / "few.parquet")})
    many = first_update({"kind": "parquet", "path": str(tmp_path / "many.parquet")})
    assert many["prompts"] >= MOST and many["peak_mib"] - few["peak_mib"] <= 500
    assert many["seconds"] <= 10
