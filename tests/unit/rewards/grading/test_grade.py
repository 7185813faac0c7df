"""`rayzero grade`: lines in, verdicts out, exit codes, and what happens to lines that cannot be read."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rayzero.rewards.base import Case, Context, Score, failed, scored
from rayzero.rewards.code.spec import StdinTest, parse
from rayzero.rewards.grading.case_lines import BrokenLine, LineForm, read_line
from rayzero.rewards.grading.grade import run
from rayzero.services.schema.causes import ErrorCause

OUT_KEYS = ["id", "reward", "status", "components", "reason", "seconds", "tests"]
RIGHT = "<think>t</think>\\boxed{9}"


def write(path: Path, *lines: Any) -> Path:
    path.write_bytes(b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))
    return path


def grade(tmp_path: Path, reward: str, *lines: Any, **options: Any) -> tuple[int, list[dict[str, Any]]]:
    source, target = write(tmp_path / "cases.jsonl", *lines), tmp_path / "verdicts.jsonl"
    code = run(reward, source, target, **options)
    return code, [json.loads(line) for line in target.read_text().splitlines()]


class Scripted:
    """Scores by the number in the completion: seconds to wait."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed = False

    async def start(self) -> None:
        """Nothing."""

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        self.asked.append(cases[0].text)
        if cases[0].text == "break":
            raise RuntimeError("broken")
        if cases[0].text == "error":
            return [failed(ErrorCause.DEADLINE, "too slow", seconds=1.5)]
        await asyncio.sleep(float(cases[0].text))
        return [scored(1.0, tests=({"status": "pass"},))]

    async def close(self) -> None:
        self.closed = True


def test_format_lines(tmp_path: Path) -> None:
    code, verdicts = grade(
        tmp_path,
        "format",
        {"id": "a", "completion": RIGHT},
        {"id": 2, "completion": "t</think>a", "prefilled": True},
        {"id": None, "completion": RIGHT, "prefilled": True},
        {"id": [1], "completion": "", "prefilled": False, "unknown": {}},
        {"id": 2, "completion": "\ud800\0<think>t</think>a"},
    )
    assert code == 0
    assert [list(verdict) for verdict in verdicts] == [OUT_KEYS] * 5
    assert [verdict["id"] for verdict in verdicts] == ["a", 2, None, [1], 2]
    assert [verdict["reward"] for verdict in verdicts] == [1, 1, 0, 0, 0]
    assert [verdict["status"] for verdict in verdicts] == ["correct", "correct", "wrong", "wrong", "wrong"]
    assert verdicts[0]["components"] == {"format": 1.0}
    assert verdicts[0]["tests"] == []


def test_math_lines_carry_their_own_settings(tmp_path: Path) -> None:
    code, verdicts = grade(
        tmp_path,
        "math",
        {"id": 1, "completion": "Answer: 9", "answer": "9"},
        {"id": 2, "completion": "Answer: 9", "answer": "9", "fallback": "answer_line"},
        {"id": 3, "completion": "<answer>9</answer>", "answer": "9", "fallback": ["answer_line", "answer_tags"]},
        {"id": 4, "completion": "\\boxed{9}, but", "answer": "9", "prefilled": True},
        {"id": 5, "completion": "\\boxed{9}, but", "answer": "9", "prompt_text": "Q<think>\n"},
        {"id": 6, "completion": "\\boxed{9}", "answer": ""},
        {"id": 7, "completion": "9", "answer": "9", "fallback": "guess"},
        {"id": 8, "completion": "9", "answer": "9", "prefilled": "yes"},
        workers=1,
    )
    assert code == 1  # the last two are broken
    assert [verdict["status"] for verdict in verdicts] == ["wrong", "correct", "correct", "wrong", "wrong", "error"]


def test_language_lines(tmp_path: Path) -> None:
    mixed = "<think>我们 need to 计算 the sum</think>好"
    code, verdicts = grade(
        tmp_path,
        "language",
        {"id": 1, "completion": mixed, "target": "zh"},
        {"id": 2, "completion": mixed, "target": "en-US"},
        {"id": 3, "completion": "<think>All of it</think>好", "target": "English"},
    )
    assert code == 0
    assert [verdict["reward"] for verdict in verdicts] == [0.5, 0.5, 1.0]
    assert [verdict["status"] for verdict in verdicts] == ["wrong", "wrong", "correct"]


def test_math_lines_run_in_children(tmp_path: Path) -> None:
    code, verdicts = grade(
        tmp_path,
        "math",
        {"id": 1, "completion": RIGHT, "answer": "9"},
        {"id": 2, "completion": RIGHT, "answer": 9},
        {"id": 3, "completion": RIGHT, "answer": "8"},
        {"id": 4, "completion": "", "answer": "9"},
        {"id": 5, "completion": "x" * 1_000_000, "answer": "9"},
        workers=1,
    )
    assert code == 0
    assert [verdict["reward"] for verdict in verdicts] == [1, 1, 0, 0, 0]
    assert all(verdict["seconds"] < 3 for verdict in verdicts)


@pytest.mark.parametrize(
    ("reward", "line", "text"),
    [
        ("format", b'{"id": 1\n', "not JSON"),
        ("format", b"\xff\xfe\n", "not UTF-8"),
        ("format", b"[" * 100_000 + b"\n", "not JSON"),
        ("format", b'{"id": 1, "completion": ' + b"1" * 5000 + b"}\n", "not JSON that can be read"),
        ("format", [], "a JSON object is expected, not a list"),
        ("format", {"completion": "a"}, "missing `id`"),
        ("format", {"id": 1}, "missing `completion`"),
        ("format", {"id": 1, "completion": None}, "missing `completion`"),
        ("format", {"id": 1, "completion": 7}, "`completion` must be text, not a number"),
        ("format", {"id": 1, "completion": "a", "prefilled": "yes"}, "`prefilled` must be true or false, not text"),
        ("math", {"id": 1, "completion": "a"}, "missing `answer`"),
        (
            "math",
            {"id": 1, "completion": "a", "answer": [["9"]]},
            "`answer` must be text, a number or a list of them, not a list",
        ),
        (
            "math",
            {"id": 1, "completion": "a", "answer": True},
            "`answer` must be text, a number or a list of them, not a boolean",
        ),
        ("language", {"id": 1, "completion": "a"}, "missing `target`"),
        ("language", {"id": 1, "completion": "a", "target": "tlh"}, "`target`: unknown language 'tlh'; known: en, zh"),
        ("code", {"id": 1, "completion": "a", "tests": [{"assert": "x"}]}, "missing `language`"),
        ("code", {"id": 1, "completion": "a", "language": "python"}, "missing `tests`"),
        ("code", {"id": 1, "language": "python", "tests": [{"assert": "x"}]}, "missing `completion`"),
        ("code", {"id": 1, "code": 1, "language": "python", "tests": [{"assert": "x"}]}, "`code` must be text"),
        ("code", {"id": 1, "code": "", "language": "python", "tests": []}, "tests"),
        ("code", {"id": 1, "code": "", "language": "python", "tests": [{"stdin": 3, "expected": "x"}]}, "tests.0"),
    ],
)
def test_a_broken_line_is_named_and_the_rest_is_graded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reward: str, line: Any, text: str
) -> None:
    code, verdicts = grade(tmp_path, reward, b"\n", line)
    assert (code, verdicts) == (1, [])
    shown = capsys.readouterr().err
    assert f"{tmp_path}/cases.jsonl:2: " in shown
    assert text in shown


def test_good_lines_around_a_broken_one_keep_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"id": number, "completion": RIGHT} for number in range(5)]
    code, verdicts = grade(tmp_path, "format", b"\xef\xbb\xbf", *lines[:2], b"oops\n", b" \r\n", *lines[2:])
    assert code == 1
    assert [verdict["id"] for verdict in verdicts] == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err.count("cases.jsonl:3: not JSON") == 1


def test_order_is_kept_errors_are_graded_and_equal_lines_are_asked_once(tmp_path: Path) -> None:
    reward = Scripted()
    lines = [{"id": index, "completion": text} for index, text in enumerate(["0.1", "0", "error", "break", "0.1"])]
    code, verdicts = grade(tmp_path, "format", *lines, make=lambda name, workers: reward)
    assert code == 0
    assert [verdict["id"] for verdict in verdicts] == [0, 1, 2, 3, 4]
    assert [verdict["status"] for verdict in verdicts] == ["correct", "correct", "error", "error", "correct"]
    assert verdicts[2] | {"id": 2} == {
        "id": 2,
        "reward": None,
        "status": "error",
        "components": {},
        "reason": "deadline: too slow",
        "seconds": 1.5,
        "tests": [],
    }
    assert verdicts[3]["reason"] == "exception: RuntimeError: broken"
    assert verdicts[0]["tests"] == [{"status": "pass"}]
    assert reward.asked == ["0.1", "0", "error", "break"]
    assert reward.closed


def test_a_case_that_hangs_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    lines = [{"id": index, "completion": str(0.3 + index / 1e6)} for index in range(200)]
    started = time.perf_counter()
    code, _ = grade(tmp_path, "format", *lines, make=lambda name, workers: Scripted())
    assert code == 0
    assert time.perf_counter() - started < 3


def test_a_function_of_the_user_s_own_gets_the_line_as_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "graded_rewards.py").write_text(
        "def near(prompts, completions, answer, limit):\n"
        "    assert prompts == ['6 + 3?'], prompts\n"
        "    return [1.0 if abs(float(completions[0]) - answer[0]) <= limit[0] else 0.0]\n"
    )
    line = {"prompt": "6 + 3?", "answer": 9, "limit": 2}
    code, verdicts = grade(
        tmp_path,
        "graded_rewards:near",
        {"id": 1, "completion": "8", **line},
        {"id": 2, "completion": "6", **line},
        {"id": 3, "completion": "nine", **line},
        {"id": 4, "answer": 9},
        progress=False,
    )
    assert code == 1 and "missing `completion`" in capsys.readouterr().err
    assert [verdict["reward"] for verdict in verdicts] == [1.0, 0.0, None]
    assert verdicts[0]["components"] == {"graded_rewards:near": 1.0}
    assert verdicts[2]["status"] == "error" and "could not convert" in verdicts[2]["reason"]


def test_a_function_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = write(tmp_path / "cases.jsonl", {"id": 1, "completion": "8"})
    assert run("no_such_module:f", cases, tmp_path / "verdicts.jsonl", progress=False) == 1
    assert "no_such_module:f cannot be used: " in capsys.readouterr().err


def test_an_empty_file_has_no_verdicts(tmp_path: Path) -> None:
    assert grade(tmp_path, "format") == (0, [])


@pytest.mark.parametrize(
    ("reward", "name", "out", "workers", "text"),
    [
        ("speed", "cases.jsonl", "out", 1, "unknown reward 'speed': choose one of math, code, format, language"),
        ("format", "absent.jsonl", "out", 1, "absent.jsonl cannot be read: No such file"),
        ("format", ".", "out", 1, "cannot be read: Is a directory"),
        ("format", "cases.jsonl", "no/such/out", 1, "cannot be written: No such file"),
        ("format", "cases.jsonl", "out", 0, "--workers must be at least 1"),
    ],
)
def test_arguments_that_cannot_work_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reward: str, name: str, out: str, workers: int, text: str
) -> None:
    write(tmp_path / "cases.jsonl", {"id": 1, "completion": RIGHT})
    assert run(reward, tmp_path / name, tmp_path / out, workers) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_standard_input_and_output(tmp_path: Path) -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from rayzero.rewards.grading.grade import run; sys.exit(run('format', '-', '-'))",
        ],
        input=json.dumps({"id": 1, "completion": RIGHT}).encode(),
        capture_output=True,
        check=True,
    )
    assert json.loads(process.stdout)["status"] == "correct"
    assert process.stderr == b""


def test_an_interrupt_ends_the_children_and_keeps_what_is_done(tmp_path: Path) -> None:
    source = write(tmp_path / "cases.jsonl", {"id": 1, "completion": "x"}, {"id": 2, "completion": "y"})
    script = (
        "import sys, rayzero.rewards.grading.grade as grade\n"
        "from rayzero.rewards.registry import Capacity, build_reward\n"
        "from rayzero.services.schema.config.reward_components import CustomComponent\n"
        "component = CustomComponent(function='hanging:hang', limits={'deadline_s': 60})\n"
        "make = lambda name, workers: build_reward(component, Capacity(num_children=workers))\n"
        "sys.exit(grade.run('format', sys.argv[1], sys.argv[2], 2, make=make))\n"
    )
    (tmp_path / "hanging.py").write_text(
        "import os, time\ndef hang(completions):\n    if completions == ['x']:\n        return [1.0]\n"
        "    open('pid', 'w').write(str(os.getpid())); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{os.getcwd()}:{tmp_path}"}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(source), "out.jsonl"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
    )
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert process.poll() is None
        time.sleep(0.02)
    child = int((tmp_path / "pid").read_text())
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"interrupted; the verdicts so far are in" in shown
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert not (tmp_path / "out.jsonl").exists()
    assert [json.loads(line)["id"] for line in (tmp_path / "out.jsonl.partial").read_text().splitlines()] == [1]


def test_one_case_is_quick_and_loads_nothing_heavy(tmp_path: Path) -> None:
    source = write(tmp_path / "cases.jsonl", {"id": 1, "completion": RIGHT, "answer": "9"})
    script = (
        "import sys; from rayzero.rewards.grading.grade import run; code = run('math', sys.argv[1], sys.argv[2])\n"
        "assert not {'ray', 'torch', 'numpy', 'sympy', 'pydantic', 'vllm'} & set(sys.modules)\n"
        "import resource; used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime)\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "out")]
    output = subprocess.run(command, capture_output=True, check=True).stdout
    assert float(output) < 1.0


class TestForm:
    """Lines that are spelt otherwise than rayzero spells them."""

    def test_fallbacks_of_the_command_hold_where_a_line_has_none(self, tmp_path: Path) -> None:
        lines = (
            {"id": 0, "completion": "Answer: 9", "answer": "9"},
            {"id": 1, "completion": "<answer>9</answer>", "answer": "9"},
            {"id": 2, "completion": "Answer: 9", "answer": "9", "fallback": "answer_tags"},
            {"id": 3, "completion": "The final answer is 9.", "answer": ["8", "9"]},
        )
        _, strict = grade(tmp_path, "math", *lines)
        assert [verdict["reward"] for verdict in strict] == [0.0] * 4
        form = LineForm(fallbacks=("answer_line", "answer_tags", "final_answer"))
        code, verdicts = grade(tmp_path, "math", *lines, form=form)
        assert (code, [verdict["reward"] for verdict in verdicts]) == (0, [1.0, 1.0, 0.0, 1.0])

    def test_keys_are_found_by_their_paths(self, tmp_path: Path) -> None:
        form = LineForm({"answer": "reward_model.ground_truth", "completion": "choices.0.text", "id": "extra.index"})
        line = {
            "choices": [{"text": RIGHT}], "reward_model": json.dumps({"ground_truth": "9"}), "extra": {"index": 4},
        }  # fmt: skip
        code, verdicts = grade(tmp_path, "math", line, form=form)
        assert (code, verdicts[0]["id"], verdicts[0]["reward"]) == (0, 4, 1.0)
        code, _ = grade(tmp_path, "math", {"id": 1, "completion": "a"}, form=form)
        assert code == 1

    def test_the_answer_of_a_code_line_may_be_its_tests(self) -> None:
        truth = '{"inputs": ["1"], "outputs": ["2"], "fn_name": null}'
        line = {"id": 1, "completion": "x", "reward_model": {"ground_truth": truth}}
        read = read_line(json.dumps(line).encode(), "code", LineForm({"answer": "reward_model.ground_truth"}))
        assert parse(read.case.prompt.answer).tests == [StdinTest(stdin="1", expected="2")]
        with pytest.raises(BrokenLine, match="`answer` must be"):
            read_line(json.dumps({**line, "answer": "2"}).encode(), "code")

    @pytest.mark.parametrize(("reward", "fallback"), [("math", "guess"), ("exact", "answer_line")])
    def test_a_fallback_that_does_not_fit_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], reward: str, fallback: str
    ) -> None:
        assert run(reward, tmp_path / "in", tmp_path / "out", form=LineForm(fallbacks=(fallback,))) == 2
        assert "--fallback" in capsys.readouterr().err
