from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.data.keys import prompt_key
from rayzero.services.data.prompts import load_demonstrations, load_prompts
from rayzero.services.schema.config.data import DataSettings
from rayzero.services.schema.config.training import ColdStartSettings
from rayzero.services.schema.errors import RecipeError


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(path: Path, **more: Any) -> DataSettings:
    return DataSettings.model_validate({"train": [{"kind": "jsonl", "path": str(path)}], **more})


class TestHoldingOut:
    def test_split_off_prompts_are_never_trained_on_even_when_they_occur_twice(self, tmp_path: Path) -> None:
        rows = [{"prompt": f"question {n % 40}", "answer": "1"} for n in range(80)]
        train, held_out = load_prompts(
            settings(write_rows(tmp_path / "p.jsonl", rows), num_held_out=10), num_held_out=10
        )
        assert len(held_out) == 10 and len(train) == 60
        assert not {prompt_key(p) for p in train} & {prompt_key(p) for p in held_out}

    def test_the_sample_does_not_depend_on_the_order_of_the_rows(self, tmp_path: Path) -> None:
        rows = [{"prompt": f"question {n}", "answer": "1"} for n in range(50)]
        _, one = load_prompts(settings(write_rows(tmp_path / "a.jsonl", rows), num_held_out=10), num_held_out=10)
        _, other = load_prompts(
            settings(write_rows(tmp_path / "b.jsonl", rows[::-1]), num_held_out=10), num_held_out=10
        )
        assert [p.messages for p in one] == [p.messages for p in other]

    @pytest.mark.parametrize("number", [None, 64])
    def test_a_larger_evaluation_meets_no_trained_prompt(self, tmp_path: Path, number: int | None) -> None:
        file = write_rows(tmp_path / "p.jsonl", [{"prompt": f"question {n}", "answer": "1"} for n in range(2000)])
        changes = {} if number is None else {"num_held_out": number}
        trained, few = load_prompts(settings(file, **changes), num_held_out=16)
        also, many = load_prompts(settings(file, **changes), num_held_out=64)
        assert (len(few), len(many)) == (16, 64) and [p.prompt_id for p in trained] == [p.prompt_id for p in also]
        assert not {prompt_key(p) for p in trained} & {prompt_key(p) for p in many}

    def test_prompts_stay_held_out_when_data_are_added(self, tmp_path: Path) -> None:
        rows = [{"prompt": f"question {n}", "answer": "1"} for n in range(2000)]
        trained, held_out = load_prompts(settings(write_rows(tmp_path / "a.jsonl", rows[:1000])), num_held_out=64)
        later, _ = load_prompts(settings(write_rows(tmp_path / "b.jsonl", rows)), num_held_out=64)
        assert 1700 < len(later) < 1900 and len(trained) > 850
        assert not {prompt_key(p) for p in later} & {prompt_key(p) for p in held_out}

    def test_more_than_is_held_out_is_refused_with_the_way_on(self, tmp_path: Path) -> None:
        file = write_rows(tmp_path / "p.jsonl", [{"prompt": f"question {n}", "answer": "1"} for n in range(200)])
        with pytest.raises(
            RecipeError, match=r"is 128, and \d+ prompts are held out: a tenth.* of the 200 .*data\.num_held_out"
        ):
            load_prompts(settings(file), num_held_out=128)

    def test_no_way_on_is_named_that_a_small_file_does_not_have(self, tmp_path: Path) -> None:
        file = write_rows(tmp_path / "p.jsonl", [{"prompt": f"question {n}", "answer": "1"} for n in range(60)])
        with pytest.raises(RecipeError, match=r"of the 60 in data\.train") as refused:
            load_prompts(settings(file), num_held_out=128)
        assert "num_held_out" not in str(refused.value)

    def test_overlap_with_held_out_sources_is_taken_out_of_training(self, tmp_path: Path) -> None:
        train_file = write_rows(tmp_path / "t.jsonl", [{"prompt": f" question {n}", "answer": "1"} for n in range(20)])
        held_file = write_rows(
            tmp_path / "h.jsonl", [{"prompt": f"question {n} ", "answer": "1"} for n in range(15, 25)]
        )
        held = {"held_out": [{"kind": "jsonl", "path": str(held_file), "system_prompt": "Be brief."}]}
        train, held_out = load_prompts(settings(train_file, **held), num_held_out=4)
        assert len(train) == 15 and len(held_out) == 4
        with pytest.raises(RecipeError, match=r"data\.train\.0: 5 of its prompts are also held out"):
            load_prompts(settings(train_file, **held, on_overlap="refuse"), num_held_out=4)

    def test_nothing_left_to_train_on_is_refused(self, tmp_path: Path) -> None:
        file = write_rows(tmp_path / "p.jsonl", [{"prompt": f"question {n}", "answer": "1"} for n in range(10)])
        with pytest.raises(RecipeError, match="10 different prompts, and 10 are to be held out"):
            load_prompts(settings(file, num_held_out=10), num_held_out=10)
        with pytest.raises(RecipeError, match="none is left to train on"):
            load_prompts(settings(file, held_out=[{"kind": "jsonl", "path": str(file)}]), num_held_out=10)

    def test_more_can_be_split_off_than_are_evaluated(self, tmp_path: Path) -> None:
        file = write_rows(tmp_path / "p.jsonl", [{"prompt": f"question {n}", "answer": "1"} for n in range(30)])
        train, held_out = load_prompts(settings(file, num_held_out=20), num_held_out=5)
        assert (len(train), len(held_out)) == (10, 5)

    def test_ids_are_unique_and_tell_the_source(self, tmp_path: Path) -> None:
        files = [
            write_rows(tmp_path / f"{name}.jsonl", [{"prompt": f"{name} {n}", "answer": "1"} for n in range(5)])
            for name in "ab"
        ]
        data = DataSettings.model_validate(
            {"train": [{"kind": "jsonl", "path": str(f)} for f in files], "num_held_out": 2}
        )
        train, held_out = load_prompts(data, num_held_out=2)
        ids = Counter(p.prompt_id for p in [*train, *held_out])
        assert set(ids) == {f"train/{part}/{row}" for part in (0, 1) for row in range(1, 6)}


class TestDemonstrations:
    def cold_start(self, path: Path) -> ColdStartSettings:
        return ColdStartSettings.model_validate(
            {"source": {"kind": "jsonl", "path": str(path)}, "num_updates": 1, "optimizer": {"learning_rate": 1e-3}}
        )

    def test_pairs_of_prompt_and_completion(self, tmp_path: Path) -> None:
        file = write_rows(tmp_path / "d.jsonl", [{"prompt": "1+1=", "completion": "2"}])
        ((asked, completion),) = load_demonstrations(self.cold_start(file))
        assert (asked.messages[0].content, completion, asked.answer) == ("1+1=", "2", None)

    def test_a_row_without_completion_is_named(self, tmp_path: Path) -> None:
        file = write_rows(tmp_path / "d.jsonl", [{"prompt": "1+1=", "completion": "2"}, {"prompt": "1+2="}])
        with pytest.raises(RecipeError, match=r"d\.jsonl:2: column 'completion'"):
            load_demonstrations(self.cold_start(file))


def test_without_an_evaluation_nothing_is_held_out(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "answer": "1"} for n in range(50)]
    file = write_rows(tmp_path / "a.jsonl", rows)
    train, held_out = load_prompts(settings(file), num_held_out=0)
    assert len(train) == 50 and held_out == ()
    train, held_out = load_prompts(settings(file, num_held_out=10), num_held_out=0)
    assert len(train) == 40 and held_out == ()
