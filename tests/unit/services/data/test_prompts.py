from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.data.prompts import (
    MixPart,
    PromptMix,
    PromptStream,
    load_demonstrations,
    load_prompts,
    prompt_key,
)
from rayzero.services.schema.config.data import DataSettings
from rayzero.services.schema.config.training import ColdStartSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import ChatMessage, Prompt


def prompt(name: str, text: str | None = None) -> Prompt:
    return Prompt(prompt_id=name, messages=(ChatMessage(role="user", content=text or name),), answer="1")


def mix(*sizes: int, weights: tuple[float, ...] = ()) -> PromptMix:
    parts = [
        MixPart(weight=weights[index] if weights else 1.0, prompts=tuple(prompt(f"{index}/{n}") for n in range(size)))
        for index, size in enumerate(sizes)
    ]
    return PromptMix(parts=tuple(parts))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(path: Path, **more: Any) -> DataSettings:
    return DataSettings.model_validate({"train": [{"kind": "jsonl", "path": str(path)}], **more})


class TestStream:
    def test_an_epoch_gives_every_prompt_once_and_the_next_in_another_order(self) -> None:
        stream = PromptStream(mix(50), seed=3)
        first, second = ([stream.next().prompt_id for _ in range(50)] for _ in range(2))
        assert sorted(first) == sorted(second) == sorted(f"0/{n}" for n in range(50))
        assert first != second

    def test_the_seed_decides_the_order(self) -> None:
        def head(seed: int) -> list[str]:
            stream = PromptStream(mix(50), seed=seed)
            return [stream.next().prompt_id for _ in range(10)]

        assert head(1) == head(1) != head(2)

    def test_without_shuffle_prompts_come_in_order(self) -> None:
        stream = PromptStream(mix(3), seed=3, shuffle=False)
        assert [stream.next().prompt_id for _ in range(4)] == ["0/0", "0/1", "0/2", "0/0"]

    def test_sources_take_turns_by_weight(self) -> None:
        stream = PromptStream(mix(10, 1000, weights=(3, 1)), seed=0)
        for count in range(1, 400):
            stream.next()
            given = stream.state_dict()["given"]
            assert abs(given[0] - 0.75 * count) < 1 and abs(given[1] - 0.25 * count) < 1

    def test_a_resumed_stream_goes_on_as_the_old_one_would_have(self) -> None:
        data = mix(7, 5, weights=(1, 2.5))
        whole = PromptStream(data, seed=9)
        expected = [whole.next().prompt_id for _ in range(100)]
        for cut in (0, 1, 33, 99):
            first = PromptStream(data, seed=9)
            head = [first.next().prompt_id for _ in range(cut)]
            resumed = PromptStream(data, seed=9)
            resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
            assert head + [resumed.next().prompt_id for _ in range(100 - cut)] == expected

    def test_a_cursor_of_other_data_or_another_seed_is_refused(self) -> None:
        state = PromptStream(mix(5), seed=1).state_dict()
        with pytest.raises(RecipeError, match="changed since the checkpoint"):
            PromptStream(mix(6), seed=1).load_state_dict(state)
        with pytest.raises(RecipeError, match="seed 1, not 2"):
            PromptStream(mix(5), seed=2).load_state_dict(state)

    @pytest.mark.parametrize("change", [{"answer": "other"}, {"source": "other"}, {"columns": {"level": 2}}])
    def test_a_cursor_of_the_same_questions_with_other_answers_is_refused(self, change: dict[str, Any]) -> None:
        state = PromptStream(mix(5), seed=1).state_dict()
        (part,) = mix(5).parts
        others = PromptMix(parts=(replace(part, prompts=(replace(part.prompts[0], **change), *part.prompts[1:])),))
        with pytest.raises(RecipeError, match="answers, sources or columns of the training prompts changed"):
            PromptStream(others, seed=1).load_state_dict(state)
        del state["answers"]  # of an older checkpoint
        PromptStream(others, seed=1).load_state_dict(state)


class TestHoldingOut:
    def test_split_off_prompts_are_never_trained_on_even_when_they_occur_twice(self, tmp_path: Path) -> None:
        rows = [{"prompt": f"question {n % 40}", "answer": "1"} for n in range(80)]
        train, held_out = load_prompts(settings(write_rows(tmp_path / "p.jsonl", rows)), num_held_out=10)
        assert len(held_out) == 10 and len(train) == 60
        assert not {prompt_key(p) for p in train} & {prompt_key(p) for p in held_out}

    def test_the_sample_does_not_depend_on_the_order_of_the_rows(self, tmp_path: Path) -> None:
        rows = [{"prompt": f"question {n}", "answer": "1"} for n in range(50)]
        _, one = load_prompts(settings(write_rows(tmp_path / "a.jsonl", rows)), num_held_out=10)
        _, other = load_prompts(settings(write_rows(tmp_path / "b.jsonl", rows[::-1])), num_held_out=10)
        assert [p.messages for p in one] == [p.messages for p in other]

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
            load_prompts(settings(file), num_held_out=10)
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
        data = DataSettings.model_validate({"train": [{"kind": "jsonl", "path": str(f)} for f in files]})
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
