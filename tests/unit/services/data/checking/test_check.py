from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from rayzero.services.data.checking.check import check_file
from rayzero.services.data.checking.report import DataReport, GradedSample
from rayzero.services.data.formats.registry import FORMATS
from rayzero.services.schema.config.data import DataSettings
from rayzero.services.schema.config.reward import RewardSettings
from rayzero.services.schema.errors import RecipeError, UsageError
from rayzero.services.schema.messages import Prompt
from tests.published_rows import ROWS, Row, acecode_v2, livecodebench, rows_of

Fault = Callable[[Row], Row]


def written(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def put(path: str, value: Any) -> Fault:
    """A row with another value at a dotted path."""

    def change(row: Row) -> Row:
        head, _, rest = path.partition(".")
        return {**row, head: put(rest, value)(row[head]) if rest else value}

    return change


def without(name: str) -> Fault:
    return lambda row: {key: value for key, value in row.items() if key != name}


HOSTILE = base64.b64encode(zlib.compress(pickle.dumps(Path))).decode()
FAULTS: list[tuple[str, Fault, str]] = [
    ("verl", without("reward_model"), "missing column"),
    ("verl", put("reward_model.ground_truth", None), "null"),
    ("verl", put("reward_model.ground_truth", " "), "empty answer"),
    ("verl", put("reward_model.ground_truth", [1, {}]), "wrong type"),
    ("verl", put("reward_model.style", "model"), "unsupported"),
    ("verl", put("prompt", [{"role": "user"}]), "wrong type"),
    ("verl", put("prompt", [{"role": "assistant", "content": "Hi"}]), "wrong role"),
    ("dapo", put("reward_model.ground_truth", r"\boxed{}"), "empty answer"),
    ("dapo", put("prompt", None), "null"),
    ("prime", put("reward_model", {"ground_truth": '{"inputs": ["1"', "style": "rule"}), "broken JSON"),
    ("prime", put("reward_model", {"ground_truth": '{"inputs": [], "outputs": []}'}), "no tests"),
    ("prime", put("reward_model", {"ground_truth": '{"inputs": ["1"], "outputs": []}'}), "broken tests"),
    ("open_r1", put("verification_info", "{broken"), "broken JSON"),
    ("open_r1", put("verification_info.test_cases", []), "no tests"),
    ("open_r1", put("verification_info.test_cases", "x"), "wrong type"),
    ("open_r1", put("verification_info.language", "cobol"), "unsupported"),
    ("open_r1", put("verification_info", {"other": 1}), "unsupported"),
    ("livecodebench", put("private_test_cases", HOSTILE), "refused"),
    ("livecodebench", put("private_test_cases", "?"), "broken JSON"),
    ("livecodebench", put("public_test_cases", '[{"input": "1"}]'), "broken tests"),
    ("livecodebench", lambda row: row | {"public_test_cases": "[]", "private_test_cases": "[]"}, "no tests"),
    ("apps", put("input_output", ""), "no tests"),
    ("apps", put("input_output", "{"), "broken JSON"),
    ("apps", put("input_output", '{"inputs": []}'), "wrong type"),
    ("taco", put("question", " "), "blank"),
    ("taco", put("input_output", '{"inputs": ["1"], "outputs": []}'), "broken tests"),
    ("code_contests", put("public_tests", {"input": ["1"], "output": []}), "broken tests"),
    ("code_contests", put("input_file", "in.txt"), "unsupported"),
    ("leetcode_dataset", put("test", None), "null"),
    ("leetcode_dataset", put("entry_point", 3), "wrong type"),
    ("kodcode", put("test", ""), "blank"),
    ("kodcode", without("test"), "missing column"),
    ("acecoder", put("test_cases", []), "no tests"),
    ("acecoder", put("test_cases", [1]), "broken tests"),
    ("mbpp", put("test_list", "[broken"), "broken JSON"),
    ("mbpp", put("test_list", None), "null"),
    ("open_instruct", put("ground_truth", None), "null"),
    ("open_instruct", put("dataset", "poems"), "unsupported"),
    ("open_instruct", lambda row: row | {"dataset": "ifeval", "ground_truth": '{"func_name": "dance"}'}, "unsupported"),
    ("open_instruct", lambda row: row | {"dataset": "ifeval", "ground_truth": "{broken"}, "broken JSON"),
    ("open_instruct", lambda row: row | {"dataset": "code", "ground_truth": "[]"}, "no tests"),
]


@pytest.mark.parametrize("name", FORMATS)
def test_a_sound_file_has_no_fault_and_its_recipe_lines_are_valid(tmp_path: Path, name: str) -> None:
    report = check_file(written(tmp_path / "rows.jsonl", rows_of(name)))
    assert (report.format, report.rows, report.usable, dict(report.faults)) == (name, 24, 24, {})
    lines = yaml.safe_load(report.recipe)
    settings = DataSettings.model_validate(lines["data"])
    rewards = TypeAdapter(RewardSettings).validate_python(lines["reward"])
    assert settings.train[0].format == name
    assert all(rewards.has_rubric(task) for task in report.tasks)


def test_every_format_has_its_faults() -> None:
    assert {name for name, _, _ in FAULTS} == set(ROWS)


@pytest.mark.parametrize(("name", "fault", "kind"), FAULTS)
def test_a_planted_fault_is_found_with_its_line(tmp_path: Path, name: str, fault: Fault, kind: str) -> None:
    rows = rows_of(name)
    rows[16] = fault(rows[16])
    report = check_file(written(tmp_path / "rows.jsonl", rows))
    assert set(report.faults) == {kind}
    assert report.faults[kind].first == [f"{tmp_path / 'rows.jsonl'}:17"]
    assert report.format == name and report.usable == 23


@pytest.mark.parametrize("name", FORMATS)
def test_broken_lines_repeated_and_held_out_questions_are_found(tmp_path: Path, name: str) -> None:
    rows: list[Any] = rows_of(name)
    rows[9], rows[11] = rows[4], "{broken"
    held_out = written(tmp_path / "test.jsonl", [ROWS[name](100), rows[2]])
    report = check_file(written(tmp_path / "rows.jsonl", rows), held_out=held_out)
    found = {kind: group.first for kind, group in report.faults.items()}
    assert found == {
        "broken row": [f"{tmp_path / 'rows.jsonl'}:12"],
        "duplicate prompt": [f"{tmp_path / 'rows.jsonl'}:10"],
        "held-out overlap": [f"{tmp_path / 'rows.jsonl'}:3"],
    }
    assert "rows.jsonl:5" in report.faults["duplicate prompt"].example
    assert "test.jsonl:2" in report.faults["held-out overlap"].example


def test_what_only_the_named_format_shows(tmp_path: Path) -> None:
    rows = [without("verification_info")(row) for row in rows_of("open_r1")]
    report = check_file(written(tmp_path / "rows.jsonl", rows), "open_r1")
    assert report.faults["missing column"].count == 24 and len(report.faults["missing column"].first) == 5


@pytest.mark.parametrize(
    ("rows", "columns", "component"),
    [
        ([{"question": f"{n}+1?", "answer": f"So\n#### {n + 1}"} for n in range(5)],
         {"prompt": "question", "answer_after": "####"}, {"kind": "math", "rules": {"worked_out": True}}),
        ([{"messages": [{"role": "user", "content": f"{n}?"}], "target": "Paris"} for n in range(5)],
         {"answer": "target"}, {"kind": "exact"}),
        ([{"conversations": [{"from": "human", "value": f"{n}?"}], "answer": "B"} for n in range(5)],
         {"messages": "conversations"}, {"kind": "choice"}),
        ([{"prompt": f"Write f. {n}", "answer": {"tests": ["assert f(1) == 2"]}} for n in range(5)],
         None, {"kind": "code"}),
        ([{"prompt": f"Write f. {n}", "answer": '{"inputs": ["1"], "outputs": ["2"]}'} for n in range(5)],
         None, {"kind": "code"}),
    ],
)  # fmt: skip
def test_columns_of_no_published_format_are_told_by_their_names(
    tmp_path: Path, rows: list[Row], columns: Any, component: Any
) -> None:
    report = check_file(written(tmp_path / "rows.jsonl", rows))
    lines = yaml.safe_load(report.recipe)
    assert lines["data"]["train"][0].get("columns") == columns
    assert lines["reward"]["rubrics"]["default"]["accuracy"] == component
    assert not report.faults and report.usable == 5


def test_columns_of_any_name_are_taken_as_they_are_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("Nr,Frage,Loesung\n1,What is 2 + 2?,4\n2,What is 3 + 3?,6\n")
    with pytest.raises(UsageError, match="say which it is, --prompt COLUMN --answer COLUMN"):
        check_file(str(file))
    with pytest.raises(UsageError, match="--answer Lösung: there is no such column; there are: Nr, Frage, Loesung"):
        check_file(str(file), names={"prompt": "Frage", "answer": "Lösung"})
    report = check_file(str(file), names={"prompt": "Frage", "answer": "Loesung"})
    (source,) = yaml.safe_load(report.recipe)["data"]["train"]
    assert source["columns"] == {"prompt": "Frage", "answer": "Loesung"} and report.usable == 2


def test_the_usual_names_are_found_in_any_case(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", [{"Question": "What is 2 + 2?", "ANSWER": 4}])
    (source,) = yaml.safe_load(check_file(file).recipe)["data"]["train"]
    assert source["columns"] == {"prompt": "Question", "answer": "ANSWER"}


def test_a_task_that_comes_late_in_the_file_has_its_rubric(tmp_path: Path) -> None:
    rows = sorted((ROWS["prime"](n) for n in range(1, 420)), key=lambda row: str(row["ability"]), reverse=True)
    report = check_file(written(tmp_path / "rows.jsonl", rows))
    assert set(yaml.safe_load(report.recipe)["reward"]["rubrics"]) == {"math", "code"}


def test_prompts_that_ask_for_another_form_of_answer_get_its_fallback(tmp_path: Path) -> None:
    report = check_file(written(tmp_path / "rows.jsonl", rows_of("dapo")))
    component = yaml.safe_load(report.recipe)["reward"]["rubrics"]["default"]["accuracy"]
    assert component == {"kind": "math", "rules": {"fallback": "answer_line"}}


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.jsonl"):
        check_file(str(tmp_path / "rows.txt"))
    with pytest.raises(RecipeError, match="cannot be read"):
        check_file(str(tmp_path / "rows.jsonl"))
    with pytest.raises(UsageError, match=r"no column is known as the prompt \(columns there: a\)"):
        check_file(written(tmp_path / "rows.jsonl", [{"a": 1}]))
    with pytest.raises(UsageError, match="--format poems: known are verl"):
        check_file(written(tmp_path / "rows.jsonl", [livecodebench(1)]), "poems")


def test_faults_of_the_second_release_of_acecode_are_found(tmp_path: Path) -> None:
    rows = [acecode_v2(n) for n in range(1, 25)]
    rows[4] = put("tests", [])(rows[4])
    rows[7] = put("tests", ["assert add_8(0) == 8", 3])(rows[7])
    rows[9] = put("question", " ")(rows[9])
    rows[11] = without("tests")(rows[11])
    report = check_file(written(tmp_path / "rows.jsonl", rows))
    first = {kind: group.first for kind, group in report.faults.items()}
    assert (report.format, report.rows, report.usable) == ("acecoder", 24, 20)
    assert first == {
        kind: [f"{tmp_path / 'rows.jsonl'}:{line}"]
        for kind, line in (("no tests", 5), ("broken tests", 8), ("blank", 10), ("missing column", 12))
    }


def test_only_so_many_rows_are_read(tmp_path: Path) -> None:
    report = check_file(written(tmp_path / "rows.jsonl", [*rows_of("verl"), "{broken"]), max_rows=24)
    assert (report.rows, report.checked, report.faults) == (25, 24, {})
    assert "read: the first 24; the others were not looked at" in "\n".join(report.lines())


@pytest.mark.parametrize(("with_solution", "says"), [(0, True), (3, False)])
def test_gold_answers_alone_prove_nothing_and_the_report_says_so(with_solution: int, says: bool) -> None:
    sample = GradedSample(with_solution=with_solution, with_gold=8, correct=8 + with_solution)
    report = DataReport(path="p.jsonl", kind="jsonl", format=None, about="", sample=sample)
    assert ("not that it is true" in "\n".join(report.lines())) is says


def test_rows_are_shown_beside_their_answers_for_a_reader_to_compare(tmp_path: Path) -> None:
    slipped = [{"prompt": f"What comes after {n}?\n" + "x" * n * 60, "answer": str(n + 2)} for n in range(5)]
    report = check_file(written(tmp_path / "rows.jsonl", slipped))
    assert not report.faults
    lines = list(report.lines())
    at = lines.index("  is each gold answer that of its prompt? no check can tell")
    assert lines[at + 1] == f"    {tmp_path}/rows.jsonl:1: What comes after 0?  →  2"
    assert lines[at + 3].endswith(f" … {'x' * 80}  →  6") and "x" * 81 not in lines[at + 3]
    code = [{"prompt": "Write f.", "answer": {"tests": ["assert f(1) == 2"]}}]
    assert not check_file(written(tmp_path / "code.jsonl", code)).examples, "tests are not compared at a glance"


def test_rows_without_an_answer_need_a_reward_that_needs_none(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", [{"question": "Greet Ann.", "name": "Ann", "label": "x"}])
    report = check_file(file, own_reward="my:greets")
    assert not report.faults and not report.examples and report.tasks == {"custom": 1}
    lines = yaml.safe_load(report.recipe)
    assert lines["data"]["train"][0]["columns"] == {"prompt": "question", "answer": None}, "each keeps its own name"
    assert lines["reward"]["rubrics"]["default"]["accuracy"] == {"kind": "custom", "function": "my:greets"}
    published = check_file(written(tmp_path / "verl.jsonl", rows_of("verl")), own_reward="my:greets")
    assert list(yaml.safe_load(published.recipe)["reward"]["rubrics"]) == ["default"] and not published.faults
    nameless = written(tmp_path / "nameless.jsonl", [{"question": "Greet Ann.", "name": "Ann"}])
    with pytest.raises(UsageError, match=r"no column is known as the answer .*: say which it is, --answer COLUMN"):
        check_file(nameless)


def test_a_reward_is_tried_on_rows_that_can_be_used(tmp_path: Path) -> None:
    good = [{"question": f"Greet {name}.", "name": name} for name in ("Ann", "Bob", "Cleo")]
    tried: list[list[str]] = []

    def try_on(prompts: Sequence[Prompt]) -> None:
        tried.append([str(prompt.columns["name"]) for prompt in prompts])

    names = {"prompt": "question"}
    rows = written(tmp_path / "rows.jsonl", ["{broken", {"question": " ", "name": "x"}, *good])
    report = check_file(rows, names=names, own_reward="my:greets", try_on=try_on)
    assert tried == [["Ann", "Bob"]] and set(report.faults) == {"broken row", "blank"}, "the others are reported"
    none = written(tmp_path / "none.jsonl", [{"question": " ", "name": "x"}])
    assert not check_file(none, names=names, own_reward="my:greets", try_on=try_on).usable and len(tried) == 1
