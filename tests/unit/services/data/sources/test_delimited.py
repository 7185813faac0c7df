from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.data.sources.delimited import DelimitedFile
from rayzero.services.data.sources.registry import open_rows
from rayzero.services.schema.config.data import CsvSource
from rayzero.services.schema.errors import RecipeError

ROWS = [{"prompt": f'Say "{n}",\nthen\r\n{n + 1}', "answer": "é," * n} for n in range(1, 40)]


def written(path: Path, rows: list[dict[str, str]] = ROWS, delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(("name", "delimiter"), [("r.csv", ","), ("r.tsv", "\t")])
def test_records_of_several_lines_are_found_in_any_order(tmp_path: Path, name: str, delimiter: str) -> None:
    table = open_rows(CsvSource(path=str(written(tmp_path / name, delimiter=delimiter))))
    assert [row.values for row in table] == ROWS == list(table.values())
    assert [table[index].values for index in (38, 0, 17)] == [ROWS[index] for index in (38, 0, 17)]
    assert table[0].origin == f"{tmp_path / name}:2" and table[1].origin == f"{tmp_path / name}:5"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty: its first line must name the columns"),
        ("a,b,a\n1,2,3\n", "r.csv:1: a column name stands there twice"),
        ("a,b\n1,2\n\n1\n", "r.csv:4: 1 fields under 2 column names"),
        ("a,b\n1,2,3\n", "r.csv:2: 3 fields under 2 column names"),
        (b"a,b\n1,\xff\n", "r.csv:2: not UTF-8 text"),
        ('a,b\n1,"2\n', "r.csv:2: no CSV"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: Any, problem: str) -> None:
    (tmp_path / "r.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError, match=problem):
        list(DelimitedFile(tmp_path / "r.csv", "csv", None))
    with pytest.raises(RecipeError, match=problem):
        list(DelimitedFile(tmp_path / "r.csv", "csv", None).values())
