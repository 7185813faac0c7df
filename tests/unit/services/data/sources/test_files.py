from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rayzero.services.data.sources.registry import open_rows
from rayzero.services.schema.config.data import JsonLinesSource
from rayzero.services.schema.errors import RecipeError


def opened(path: Path | str) -> list[tuple[int, str, int]]:
    table = open_rows(JsonLinesSource(path=str(path)))
    rows = [(row.number, Path(row.origin).name, row.values["n"]) for row in table]
    assert rows == [(table[i].number, Path(table[i].origin).name, table[i].values["n"]) for i in range(len(table))]
    assert [values["n"] for values in table.values()] == [n for _, _, n in rows]
    return rows


def lines(*numbers: int) -> bytes:
    return b"".join(json.dumps({"n": n}).encode() + b"\n" for n in numbers)


def test_gzipped_lines_are_rows_like_any(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(lines(1, 2, 3)))
    assert opened(tmp_path / "r.jsonl.gz") == [(1, "r.jsonl.gz:1", 1), (2, "r.jsonl.gz:2", 2), (3, "r.jsonl.gz:3", 3)]


def test_a_gzip_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(lines(*range(1000)))[:-20])
    with pytest.raises(RecipeError, match=r"r\.jsonl\.gz is no whole gzip"):
        opened(tmp_path / "r.jsonl.gz")
    (tmp_path / "s.jsonl.gz").write_bytes(lines(1))
    with pytest.raises(RecipeError, match=r"s\.jsonl\.gz is no whole gzip"):
        opened(tmp_path / "s.jsonl.gz")


def test_a_pattern_and_a_directory_are_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "part-2.jsonl").write_bytes(lines(3, 4))
    (tmp_path / "part-1.jsonl").write_bytes(b"\n" + lines(1, 2))
    (tmp_path / "part-3.jsonl.gz").write_bytes(gzip.compress(lines(5)))
    (tmp_path / "README.md").write_text("no rows")
    expected = [(1, "part-1.jsonl:2", 1), (2, "part-1.jsonl:3", 2), (3, "part-2.jsonl:1", 3), (4, "part-2.jsonl:2", 4)]
    assert opened(tmp_path / "part-?.jsonl") == expected
    assert opened(tmp_path) == [*expected, (5, "part-3.jsonl.gz:1", 5)]
    with pytest.raises(RecipeError, match=r"pattern .*none-\*\.jsonl: no file has such a name"):
        opened(tmp_path / "none-*.jsonl")


@pytest.mark.parametrize("name", ["none.jsonl", "none-*.jsonl"])
def test_a_relative_path_that_leads_nowhere_says_from_where(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        open_rows(JsonLinesSource(path=name))
    assert f"(looked for in {tmp_path}, where the command runs)" in str(caught.value)
