from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.data import prompt_table
from rayzero.services.data.prompts import load_prompts
from rayzero.services.data.stream import PromptStream
from rayzero.services.schema.config.data import DataSettings
from rayzero.services.schema.errors import RecipeError

ROWS = [{"prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(300)]


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are large from 4 KiB on, and a sample is 40 rows."""
    monkeypatch.setattr(prompt_table, "WHOLE_BYTES", 4096)
    monkeypatch.setattr(prompt_table, "SAMPLE_ROWS", 40)


def written(path: Path, rows: list[Any] = ROWS) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def data(path: str, **more: Any) -> DataSettings:
    counts = {} if "held_out" in more else {"num_held_out": 5}
    return DataSettings.model_validate({"train": [{"kind": "jsonl", "path": path}], **counts, **more})


def ids(stream: PromptStream, count: int) -> list[str]:
    return [stream.next().prompt_id for _ in range(count)]


def test_a_small_file_is_read_whole_and_a_large_one_says_what_was_not_looked_at(tmp_path: Path) -> None:
    small, _ = load_prompts(data(written(tmp_path / "s.jsonl", ROWS[:50])), 5)
    large, _ = load_prompts(data(written(tmp_path / "l.jsonl")), 5)
    assert (len(small), small.unread) == (45, ())
    assert len(large) == 300
    assert "39 of its 300 rows were checked, each other one is when it is drawn" in large.unread[0]


def test_an_epoch_of_a_large_file_gives_every_prompt_once_but_those_held_out(tmp_path: Path) -> None:
    mix, held_out = load_prompts(data(written(tmp_path / "l.jsonl")), 5)
    apart = {prompt.prompt_id for prompt in held_out}
    stream = PromptStream(mix, seed=3)
    first, second = ids(stream, 295), ids(stream, 295)
    assert set(first) == set(second) == {f"train/{n}" for n in range(1, 301)} - apart
    assert len(set(first)) == 295 and first != second


def test_a_resumed_stream_of_a_large_file_goes_on_as_the_old_one_would_have(tmp_path: Path) -> None:
    path = written(tmp_path / "l.jsonl")
    expected = ids(PromptStream(load_prompts(data(path), 5)[0], seed=9), 500)
    for cut in (1, 40, 295, 400):
        first = PromptStream(load_prompts(data(path), 5)[0], seed=9)
        assert ids(first, cut) == expected[:cut]
        resumed = PromptStream(load_prompts(data(path), 5)[0], seed=9)
        resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert ids(resumed, 500 - cut) == expected[cut:]


def test_an_answer_that_changed_where_no_sample_looked_is_noticed_after_a_resume(tmp_path: Path) -> None:
    path = written(tmp_path / "l.jsonl")
    stream = PromptStream(load_prompts(data(path), 5)[0], seed=9)
    looked_at = set(prompt_table._sample(300).tolist())
    drawn = [int(name.split("/")[1]) - 1 for name in ids(stream, 30)]
    changed = next(place for place in drawn if place not in looked_at)
    rows = [dict(row) for row in ROWS]
    rows[changed]["answer"] = str(int(ROWS[changed]["answer"]) ^ 1)
    mix, _ = load_prompts(data(written(tmp_path / "l.jsonl", rows)), 5)
    with pytest.raises(RecipeError, match=rf"changed since the checkpoint.*train/{changed + 1}"):
        PromptStream(mix, seed=9).load_state_dict(stream.state_dict())


def test_an_answer_that_changed_in_a_small_file_is_noticed(tmp_path: Path) -> None:
    stream = PromptStream(load_prompts(data(written(tmp_path / "s.jsonl", ROWS[:50])), 5)[0], seed=9)
    rows = [*ROWS[:30], {**ROWS[30], "answer": "7"}, *ROWS[31:50]]
    mix, _ = load_prompts(data(written(tmp_path / "s.jsonl", rows)), 5)
    with pytest.raises(RecipeError, match="changed since the checkpoint"):
        PromptStream(mix, seed=9).load_state_dict(stream.state_dict())


def unseen(count: int = 300) -> int:
    """A row that no sample looks at."""
    looked_at = set(prompt_table._sample(count).tolist())
    return next(place for place in range(100, count) if place not in looked_at)


def test_a_held_out_question_in_a_large_file_is_passed_over_or_refused_by_name(tmp_path: Path) -> None:
    place = unseen()
    path, apart = written(tmp_path / "l.jsonl"), written(tmp_path / "h.jsonl", [ROWS[place]])
    sources = {"held_out": [{"kind": "jsonl", "path": apart}]}
    mix, held_out = load_prompts(data(path, **sources), 5)
    assert f"train/{place + 1}" not in ids(PromptStream(mix, seed=0), 299)
    assert [prompt.answer for prompt in held_out] == [str(place + 1)]
    mix, _ = load_prompts(data(path, on_overlap="refuse", **sources), 5)
    with pytest.raises(RecipeError, match=rf"prompt train/{place + 1} is also held out"):
        ids(PromptStream(mix, seed=0), 300)


def test_a_broken_row_of_a_large_file_is_refused_by_name_when_it_is_drawn(tmp_path: Path) -> None:
    place = unseen()
    for wrong in ('{"prompt": "oops"', json.dumps({"prompt": "no answer"})):
        path = written(tmp_path / "l.jsonl", [*ROWS[:place], wrong, *ROWS[place + 1 :]])
        stream = PromptStream(load_prompts(data(path), 5)[0], seed=0)
        with pytest.raises(RecipeError, match=rf"l\.jsonl:{place + 1}: "):
            ids(stream, 300)


@pytest.mark.parametrize("count", [40, 300])
def test_a_source_without_a_rubric_is_refused_by_name(tmp_path: Path, count: int) -> None:
    rows = [{**row, "topic": "sums"} for row in ROWS[:count]]
    place = unseen() if count == 300 else 30
    rows[place] = {**rows[place], "topic": "poems"}
    columns = {"kind": "jsonl", "path": written(tmp_path / "l.jsonl", rows), "columns": {"source": "topic"}}
    settings = DataSettings.model_validate({"train": [columns], "num_held_out": 5})
    with pytest.raises(RecipeError, match="no rubric for source 'poems': add it, or `default`"):
        ids(PromptStream(load_prompts(settings, 5, {"sums"}.__contains__)[0], seed=0), 300)


def test_plain_rows_are_read_as_all_others_are(tmp_path: Path) -> None:
    """The fast way says of keys, answers and faults what the slow one says."""
    rows: list[dict[str, Any]] = [
        *ROWS[:20],
        {"prompt": " What is 1 + 1?\n", "answer": "2"},
        {"prompt": "Q", "answer": 7},
    ]
    random.Random(0).shuffle(rows)
    plain = data(written(tmp_path / "s.jsonl", rows))
    slow = data(
        written(tmp_path / "m.jsonl", [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows])
    )
    one, other = (load_prompts(settings, 5) for settings in (plain, slow))
    assert [prompt.prompt_id for prompt in one[0]] == [prompt.prompt_id for prompt in other[0]]
    assert [prompt.answer for prompt in one[1]] == [prompt.answer for prompt in other[1]]
    assert one[0].parts[0].fingerprint == other[0].parts[0].fingerprint
    for wrong, problem in (({"prompt": " ", "answer": "1"}, "is blank"), ({"prompt": "x", "answer": None}, "is null")):
        with pytest.raises(RecipeError, match=rf"s\.jsonl:23: .*{problem}"):
            load_prompts(data(written(tmp_path / "s.jsonl", [*rows, wrong])), 5)


def test_a_file_that_is_written_over_while_it_is_read_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "s.jsonl", ROWS[:50])
    stream = PromptStream(load_prompts(data(path), 5)[0], seed=0, shuffle=False)
    stream.next()
    Path(path).write_text(Path(path).read_text().replace("What", "Whot"))
    with pytest.raises(RecipeError, match=r"s\.jsonl:\d+: the file changed while the run reads it"):
        stream.next()


def test_other_held_out_questions_are_another_cursor(tmp_path: Path) -> None:
    path = written(tmp_path / "s.jsonl", ROWS[:50])
    prints = set()
    for row in (ROWS[3], ROWS[4], ROWS[200]):
        apart = written(tmp_path / "h.jsonl", [row])
        prints.add(load_prompts(data(path, held_out=[{"kind": "jsonl", "path": apart}]), 5)[0].parts[0].fingerprint)
    assert len(prints) == 3
