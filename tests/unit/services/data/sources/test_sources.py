from __future__ import annotations

import json
import sys
import threading
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import TypeAdapter, ValidationError

from rayzero.services.data.sources.registry import READERS, read_rows
from rayzero.services.data.sources.rows import Row, to_prompt
from rayzero.services.schema.config.data import DataSource
from rayzero.services.schema.errors import NotInstalled, RecipeError
from rayzero.services.schema.messages import ChatMessage
from tests.system import needs


def source(**values: Any) -> DataSource:
    checked: DataSource = TypeAdapter(DataSource).validate_python(values)
    return checked


def first_prompt(settings: DataSource) -> Any:
    return to_prompt(read_rows(settings)[0], settings, "train/1")


class TestRows:
    def row(self, **values: Any) -> Row:
        return Row(number=3, origin="data.jsonl:3", values=values)

    def test_columns_are_mapped_and_the_rest_kept(self) -> None:
        settings = source(
            kind="jsonl",
            path="x",
            columns={"prompt": "question", "answer": "solution", "answer_after": "####", "source": "topic"},
            instructions="{prompt} Box it: \\boxed{}",
            system_prompt="Be brief.",
        )
        row = self.row(question="What is {2+2}?", solution="It is\n#### 4 ", topic="sums", level=5)
        made = to_prompt(row, settings, "train/3")
        assert made.messages == (
            ChatMessage(role="system", content="Be brief."),
            ChatMessage(role="user", content="What is {2+2}? Box it: \\boxed{}"),
        )
        assert (made.answer, made.source, made.columns) == ("4", "sums", {"level": 5})

    @pytest.mark.parametrize("column", ["messages", "prompt"])
    def test_a_conversation_is_left_as_it_is(self, column: str) -> None:
        turns = [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "1"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "3"},
        ]
        settings = source(kind="jsonl", path="x", system_prompt="other", instructions="no {prompt}")
        made = to_prompt(self.row(**{column: turns, "answer": "4"}), settings, "p")
        assert [(m.role, m.content) for m in made.messages] == [(t["role"], t["content"]) for t in turns]

    @pytest.mark.parametrize(
        ("values", "problem"),
        [
            ({"question": "?", "answer": "4"}, r"column 'prompt' is missing \(columns there: 'question', 'answer'\)"),
            ({"prompt": None, "answer": "4"}, "column 'prompt' is null"),
            ({"prompt": " ", "answer": "4"}, "column 'prompt' is blank"),
            ({"prompt": 7, "answer": "4"}, "must be text or a list"),
            ({"prompt": "?"}, r"column 'answer' is missing .*columns.answer \(null where the reward needs no answer\)"),
            ({"messages": [], "answer": "4"}, "must be text or a list"),
            ({"messages": [{"role": "user"}], "answer": "4"}, "message 0 must be"),
            ({"messages": [{"role": "tool", "content": ""}], "answer": "4"}, "role 'tool'"),
            ({"messages": [{"role": "assistant", "content": "hi"}], "answer": "4"}, "last message must be the user's"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_line(self, values: dict[str, Any], problem: str) -> None:
        with pytest.raises(RecipeError, match=rf"data\.jsonl:3: .*{problem}"):
            to_prompt(self.row(**values), source(kind="jsonl", path="x"), "p")

    def test_prompts_may_have_no_answer_where_the_recipe_says_so(self) -> None:
        settings = source(kind="jsonl", path="x", columns={"answer": None})
        assert to_prompt(self.row(prompt="?"), settings, "p").answer is None

    def test_a_missing_answer_marker_is_named(self) -> None:
        settings = source(kind="jsonl", path="x", columns={"answer_after": "####"})
        with pytest.raises(RecipeError, match="lacks '####'"):
            to_prompt(self.row(prompt="?", answer="4"), settings, "p")


class TestJsonLines:
    def test_blank_lines_are_skipped_and_do_not_shift_line_numbers(self, tmp_path: Path) -> None:
        file = tmp_path / "p.jsonl"
        file.write_text('\ufeff{"prompt": "é", "answer": "1"}\n\n{"prompt": "b", "answer": "2"}', encoding="utf-8")
        rows = read_rows(source(kind="jsonl", path=str(file)))
        assert [(row.number, row.values["prompt"]) for row in rows] == [(1, "é"), (3, "b")]
        assert rows[1].origin == f"{file}:3"

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (b'{"prompt": "a"', "not valid JSON: Expecting ',' delimiter"),
            (b'["a"]', "a line must be a JSON object"),
            (b'{"prompt": "\xff"}', "not UTF-8 text"),
            (b"[" * 100_000, "JSON nested too deeply"),
            (b'{"answer": ' + b"7" * 5000 + b"}", "an integer of more than 4,300 digits; write it as text"),
            (b'{"prompt": "\\ud83d"}', ".*half a character"),
        ],
    )
    def test_a_broken_line_17_is_named(self, tmp_path: Path, line: bytes, problem: str) -> None:
        file = tmp_path / "p.jsonl"
        good = json.dumps({"prompt": "a", "answer": "1"}).encode()
        file.write_bytes(b"\n".join([*[good] * 16, line, good]))
        with pytest.raises(RecipeError, match=rf"p\.jsonl:17: {problem}"):
            read_rows(source(kind="jsonl", path=str(file)))

    def test_a_missing_or_empty_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match=r"none\.jsonl cannot be read: No such file"):
            read_rows(source(kind="jsonl", path=str(tmp_path / "none.jsonl")))
        (tmp_path / "empty.jsonl").write_text("\n")
        with pytest.raises(RecipeError, match="holds no rows"):
            read_rows(source(kind="jsonl", path=str(tmp_path / "empty.jsonl")))

    def test_only_the_first_rows_are_read_where_so_many_are_wanted(self, tmp_path: Path) -> None:
        file = tmp_path / "p.jsonl"
        file.write_text('{"prompt": "a", "answer": "1"}\nbroken')
        assert len(read_rows(source(kind="jsonl", path=str(file), max_prompts=1))) == 1


class TestParquet:
    def write(self, path: Path, rows: list[dict[str, Any]]) -> Path:
        parquet.write_table(pa.Table.from_pylist(rows), path)
        return path

    def test_nested_columns_become_plain_data(self, tmp_path: Path) -> None:
        turns = [{"role": "user", "content": "2+2?"}]
        file = self.write(tmp_path / "p.parquet", [{"messages": turns, "answer": "4", "level": 3}])
        made = first_prompt(source(kind="parquet", path=str(file)))
        assert (made.messages[0].content, made.answer, made.columns) == ("2+2?", "4", {"level": 3})

    def test_a_directory_is_read_in_the_order_of_its_names(self, tmp_path: Path) -> None:
        for name in "ba":
            self.write(tmp_path / f"{name}.parquet", [{"prompt": f"{name}{n}", "answer": "1"} for n in range(2)])
        rows = read_rows(source(kind="parquet", path=str(tmp_path)))
        assert [row.values["prompt"] for row in rows] == ["a0", "a1", "b0", "b1"]
        assert [row.number for row in rows] == [1, 2, 3, 4]
        assert rows[3].origin == f"{tmp_path / 'b.parquet'}: row 2"

    def test_what_is_no_parquet_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="does not exist"):
            read_rows(source(kind="parquet", path=str(tmp_path / "none.parquet")))
        with pytest.raises(RecipeError, match=r"holds no \.parquet file"):
            read_rows(source(kind="parquet", path=str(tmp_path)))
        (tmp_path / "bad.parquet").write_text("no")
        with pytest.raises(RecipeError, match=r"bad\.parquet cannot be read as parquet"):
            read_rows(source(kind="parquet", path=str(tmp_path / "bad.parquet")))

    def test_the_wrong_kind_for_a_file_is_refused_by_the_recipe(self) -> None:
        from rayzero.services.schema.config.data import DataSettings

        with pytest.raises(ValidationError, match="kind: parquet"):
            DataSettings.model_validate({"train": [{"kind": "jsonl", "path": "p.parquet"}]})
        with pytest.raises(ValidationError, match="kind: jsonl"):
            DataSettings.model_validate({"train": [{"kind": "parquet", "path": "p.jsonl"}]})


class TestFunction:
    @pytest.fixture(autouse=True)
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "my_rows.py").write_text(
            "def squares(count, start=0):\n"
            "    for n in range(start, start + count):\n"
            "        yield {'prompt': f'{n} squared?', 'answer': str(n * n)}\n"
            "def fails():\n    yield {'prompt': 'a', 'answer': '1'}\n    raise KeyError('x')\n"
            "def numbers(): return [1, 2]\n"
            "def text(): return 'no'\n"
        )
        (tmp_path / "broken_rows.py").write_text("import no_such_module_at_all\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.delitem(sys.modules, "my_rows", raising=False)

    def test_a_module_in_the_current_directory_is_found(self) -> None:
        settings = source(kind="function", function="my_rows:squares", arguments={"count": 3, "start": 2})
        assert [row.values["answer"] for row in read_rows(settings)] == ["4", "9", "16"]

    @pytest.mark.parametrize(
        ("function", "arguments", "problem"),
        [
            ("my_rows:cubes", {}, "has no function cubes; it has: squares, fails, numbers, text"),
            ("no_such_rows:squares", {}, "module no_such_rows cannot be imported: ModuleNotFoundError"),
            ("broken_rows:squares", {}, "no_such_module_at_all"),
            ("my_rows:squares", {"counts": 3}, r"arguments do not fit: .*squares\(count, start=0\)"),
            ("my_rows:fails", {}, "failed after 1 rows: KeyError"),
            ("my_rows:numbers", {}, "row 1: a row must be a mapping of columns, not a int"),
            ("my_rows:text", {}, "must return or yield rows, not a str"),
        ],
    )
    def test_what_is_wrong_is_said(self, function: str, arguments: dict[str, Any], problem: str) -> None:
        with pytest.raises(RecipeError, match=problem):
            read_rows(source(kind="function", function=function, arguments=arguments))

    def test_endless_rows_are_cut_at_max_prompts(self) -> None:
        settings = source(kind="function", function="itertools:count", max_prompts=1)
        with pytest.raises(RecipeError, match="a row must be a mapping"):
            read_rows(settings)


@needs("datasets")
class TestHuggingFace:
    def test_a_dataset_saved_on_disk(self, tmp_path: Path) -> None:
        import datasets

        made = datasets.Dataset.from_list([{"prompt": f"q{n}", "answer": str(n)} for n in range(3)])
        datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "set"))
        rows = read_rows(source(kind="huggingface", path=str(tmp_path / "set")))
        assert [row.values["answer"] for row in rows] == ["0", "1", "2"]

    def test_a_dataset_that_cannot_be_loaded_is_named(self) -> None:
        with pytest.raises(RecipeError, match=r"dataset no-one/nothing-at-all \(split train\) cannot be loaded"):
            read_rows(source(kind="huggingface", path="no-one/nothing-at-all"))


def test_without_the_package_datasets_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(NotInstalled, match="datasets, which is not installed: make setup-dev"):
        read_rows(source(kind="huggingface", path="openai/gsm8k"))


def test_every_kind_has_a_reader() -> None:
    kinds = {"jsonl", "csv", "parquet", "huggingface", "reasoning_gym", "function"}
    assert set(READERS) == kinds
    with pytest.raises(ValidationError, match=r"must hold \{prompt\}"):
        source(kind="jsonl", path="x", instructions="no place for it")


class TestWhatNoFileCanHold:
    """Refused with row and column before anything starts: later it would end a run."""

    def row(self, **values: Any) -> Row:
        return Row(number=3, origin="rows.py, row 3", values={"prompt": "What?", "answer": "1", **values})

    @pytest.mark.parametrize(
        ("values", "problem"),
        [
            ({"answer": Decimal("1.5")}, "column 'answer' holds a Decimal, which JSON cannot"),
            ({"answer": date(2026, 1, 1)}, "holds a date"),
            ({"answer": b"1"}, "holds a bytes"),
            ({"answer": {"tests": [{1, 2}]}}, r"holds a set at \['tests'\]\[0\]"),
            ({"answer": ["1", float("nan")]}, r"holds nan at \[1\]"),
            ({"answer": 10**5000}, "holds an integer too long"),
            ({"answer": "\ud83d"}, r"'answer' holds text with half a character"),
            ({"prompt": "smile \ud83d!"}, r"'prompt' holds half a character \(\\ud83d, an unpaired surrogate\) at 6"),
            (
                {"prompt": None, "messages": [{"role": "user", "content": "\udc00"}]},
                "column 'messages': message 0 holds half",
            ),
            ({"extra": threading.Lock()}, r"column 'extra' holds a lock, which cannot be sent to another process"),
            ({"extra": {"f": lambda: 1}}, "column 'extra' holds an object, which cannot be sent"),
        ],
    )
    def test_is_refused_with_row_and_column(self, values: dict[str, Any], problem: str) -> None:
        with pytest.raises(RecipeError, match=rf"^rows\.py, row 3: .*{problem}"):
            to_prompt(self.row(**values), source(kind="jsonl", path="x"), "train/3")

    def test_numbers_of_numpy_and_dates_in_further_columns_are_fine(self) -> None:
        values = {"answer": {"n": np.int64(3), "all": (np.float32(0.5), np.array([1]))}, "day": date(2026, 1, 1)}
        prompt = to_prompt(self.row(**values), source(kind="jsonl", path="x"), "train/3")
        assert prompt.answer == {"n": 3, "all": [0.5, [1]]} and prompt.columns["day"] == date(2026, 1, 1)

    def test_the_source_of_a_row_is_text_that_can_be_written(self) -> None:
        with pytest.raises(RecipeError, match="column 'task' holds half a character"):
            to_prompt(self.row(task="\ud800"), source(kind="jsonl", path="x", columns={"source": "task"}), "train/3")
