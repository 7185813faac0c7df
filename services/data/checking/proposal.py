"""A file -> the settings that read it: its kind by its name, its format by its columns, else which column is which."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from rayzero.services.data.checking.inspection import first_values
from rayzero.services.data.copied_golds import states_its_calculation
from rayzero.services.data.formats.problem import RowFault
from rayzero.services.data.formats.registry import FORMATS, recognized
from rayzero.services.data.sources.registry import open_rows
from rayzero.services.data.sources.rows import Row, mapped
from rayzero.services.data.sources.table import RowTable
from rayzero.services.schema.config.data import DataSource, kind_of_file
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.messages import Prompt

LOOKED_AT = 200
"""Rows that decide format and columns."""
_PROMPTS = ("prompt", "question", "problem", "query", "instruction", "input")
_MESSAGES = ("messages", "conversations", "conversation", "prompt")
_ANSWERS = (
    "answer",
    "final_answer",
    "ground_truth",
    "gold",
    "target",
    "expected_answer",
    "solution",
    "output",
    "label",
)
_TEST_KEYS = frozenset(("tests", "test_cases", "test_list", "inputs", "input_output"))
_ASKS = {
    "box": re.compile(r"\\boxed|\bbox(?:ed)?\b", re.IGNORECASE),
    "hashes": re.compile("####"),
    "answer_line": re.compile(r"\bAnswer: ?(?:\$|<|\[|\{|…|\.\.\.)?(?:answer|your)?", re.IGNORECASE),
    "answer_tags": re.compile("<answer>"),
    "final_answer": re.compile(r"the final answer is", re.IGNORECASE),
}
_ANSWER_SENTENCE = "Put your final answer in \\boxed{}."
_CODE_SENTENCE = "Give the whole program in one block fenced by ```python and ```."


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """How a file is read, and what judges its rows."""

    table: RowTable
    settings: DataSource
    task: str | None
    """Of all rows; None where the format says it of each."""
    tasks: Sequence[str]
    fallback: str | None
    """Where prompts ask for their answer, if not in a box."""
    own_reward: str | None
    """`module:function`, which judges all rows."""
    is_arithmetic: bool
    """Most prompts state a calculation worth their answer: copied into the box it must not pass for the answer."""
    lines: Mapping[str, Any] = field(repr=False)
    """The source, as a recipe spells it."""

    def recipe(self, tasks: Collection[str] = (), packages: Sequence[str] = ()) -> dict[str, Any]:
        """The keys `data` and `reward` of a recipe. `tasks`: of all rows, where all were read. `packages`: what
        programs may import."""
        kinds = {task: self._component(task, packages) for task in tasks or self.tasks}
        names = list(kinds) if len(kinds) > 1 else ["default"]
        rubrics = {name: {"accuracy": kind} for name, kind in zip(names, kinds.values(), strict=True)}
        return {"data": {"train": [dict(self.lines)]}, "reward": {"rubrics": rubrics}}

    def recipe_lines(self, tasks: Collection[str] = (), packages: Sequence[str] = ()) -> str:
        """The same as text, to be pasted."""
        return as_yaml(self.recipe(tasks, packages))

    def _component(self, task: str, packages: Sequence[str]) -> dict[str, Any]:
        if self.own_reward is not None:
            return {"kind": task, "function": self.own_reward}
        if task == "code" and packages:
            return {"kind": task, "sandbox": {"packages": list(packages)}}
        rules: dict[str, Any] = {"fallback": self.fallback} if self.fallback else {}
        rules |= {"worked_out": True} if self.is_arithmetic else {}
        return {"kind": task} | ({"rules": rules} if task == "math" and rules else {})


def propose(
    path: str,
    format_name: str | None,
    path_in_recipe: str | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
    own_reward: str | None = None,
) -> Proposal:
    """Look at a file's first rows. `format_name`: take that format, whatever the columns look like. `names`: its
    columns of `prompt` and `answer`, where they are called otherwise than usual. `own_reward`: judges all of them.

    Raises:
        UsageError: the kind of the file cannot be told, or no column of it is a prompt; RecipeError: it cannot be read.
    """
    kind = _kind(path)
    if format_name is not None and format_name not in FORMATS:
        raise UsageError(f"--format {format_name}: known are {', '.join(FORMATS)}")
    source = {"kind": kind, "path": path}
    table = open_rows(_settings(source))
    rows = first_values(table, LOOKED_AT)
    found = FORMATS[format_name] if format_name else None if names else recognized(rows)
    own = {"format": found.name} if found else _columns(path, rows, names, own_reward)
    settings = _settings(source | own)
    prompts = [prompt for values in rows if (prompt := _prompt(values, settings)) is not None]
    task = "custom" if own_reward else None if found else _task([prompt.answer for prompt in prompts])
    tasks = list(Counter(task or prompt.source for prompt in prompts)) or ["math"]
    numbers = [prompt for prompt in prompts if (task or prompt.source) == "math"]
    asked = Counter(_asks(prompt.messages[-1].content) for prompt in numbers)
    where = asked.most_common(1)[0][0] if asked else "box"
    own |= _request(_sentence(tasks, where), rows, settings)
    return Proposal(
        table=table,
        settings=_settings(source | own),
        task=task,
        tasks=tasks,
        fallback=where if where not in ("", "box") else None,
        own_reward=own_reward,
        is_arithmetic=2 * sum(map(states_its_calculation, numbers)) > len(numbers),
        lines={"kind": kind, "path": path_in_recipe or path, **own},
    )


def _kind(path: str) -> str:
    """Of a file by its name, of a directory by the files in it."""
    there = Path(path).expanduser()
    names = [file.name for file in sorted(there.glob("**/*"))] if there.is_dir() else [path]
    kind = next(filter(None, map(kind_of_file, names)), None)
    if kind is None:
        raise UsageError(f"{path}: its name must end in .jsonl, .csv, .tsv (each also with .gz) or .parquet")
    return kind


def _sentence(tasks: Sequence[str], where: str) -> str:
    """What the prompts leave unsaid of the form of the answer; empty where they say it, or say different things."""
    if tasks == ["code"]:
        return _CODE_SENTENCE
    return _ANSWER_SENTENCE if tasks == ["math"] and where == "" else ""


def _request(sentence: str, rows: Sequence[Mapping[str, Any]], settings: DataSource) -> dict[str, str]:
    """The setting that puts a sentence to the prompts: text is followed by it, conversations are led in by it."""
    if not sentence:
        return {}
    marked = settings.model_copy(update={"instructions": "\x00{prompt}"})
    prompt = next((found for values in rows if (found := _prompt(values, marked)) is not None), None)
    is_text = prompt is not None and prompt.messages[-1].content.startswith("\x00")
    return {"instructions": "{prompt}\n\n" + sentence} if is_text else {"system_prompt": sentence}


def as_yaml(values: Mapping[str, Any]) -> str:
    """YAML as people write it: in the order given, texts of several lines in one with `\\n`."""
    return yaml.dump(values, Dumper=_RecipeDumper, sort_keys=False, allow_unicode=True, width=1000)


class _RecipeDumper(yaml.SafeDumper):
    """SafeDumper, that has a style for texts of several lines."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None)


_RecipeDumper.add_representer(str, _text_node)


def _settings(source: Mapping[str, Any]) -> DataSource:
    try:
        checked: DataSource = TypeAdapter(DataSource).validate_python(source)
    except ValidationError as error:
        raise UsageError(f"{source['path']}: {error.errors()[0]['msg']}") from None
    return checked


def _columns(
    path: str, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], own_reward: str | None
) -> dict[str, Any]:
    """Which column is which: as `names` say, else by what they are usually called, in whatever case."""
    there = Counter(name for row in rows for name in row)
    shown = ", ".join(there) or "none"
    for option, name in names.items():
        if name not in there:
            raise UsageError(f"{path}: --{option} {name}: there is no such column; there are: {shown}")
    messages = None if "prompt" in names else next((n for n in _MESSAGES if isinstance(_first(rows, n), list)), None)
    usual = {name.lower(): name for name in reversed(list(there))}
    prompt = names.get("prompt") or _usual(usual, _PROMPTS, rows, str)
    # A function names the columns that it reads: it finds them only where they keep their names.
    answer = names.get("answer") or _usual(usual, ("answer",) if own_reward else _ANSWERS, rows, object)
    if messages is None and prompt is None:
        raise UsageError(
            f"{path}: no column is known as the prompt (columns there: {shown}): say which it is, --prompt COLUMN "
            "--answer COLUMN (--reward module:function where a reward of your own needs none), or its published form, "
            "--format"
        )
    if answer is None and own_reward is None:
        raise UsageError(
            f"{path}: no column is known as the answer (columns there: {shown}): say which it is, --answer COLUMN; "
            "where a reward of your own needs none, name that, --reward module:function"
        )
    columns: dict[str, Any] = {} if prompt in (None, "prompt") or messages else {"prompt": prompt}
    if messages not in (None, "messages", "prompt"):
        columns["messages"] = messages
    if answer != "answer":
        columns["answer"] = answer
    texts = [row[answer] for row in rows if answer and isinstance(row.get(answer), str)]
    if texts and all("####" in text for text in texts):
        columns["answer_after"] = "####"
    return {"columns": columns} if columns else {}


def _usual(there: Mapping[str, str], names: Sequence[str], rows: Sequence[Mapping[str, Any]], kind: type) -> str | None:
    """The first of these names that is a column with values of that kind."""
    return next((there[name] for name in names if name in there and isinstance(_first(rows, there[name]), kind)), None)


def _first(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    return next((row[name] for row in rows if row.get(name) is not None), None)


def _prompt(values: Mapping[str, Any], settings: DataSource) -> Prompt | None:
    try:
        return mapped(Row(number=1, origin="", values=values), settings, "row")
    except RowFault:
        return None


def _task(answers: Sequence[Any]) -> str:
    """The reward that answers without a format look like."""
    if any(_is_tests(answer) for answer in answers):
        return "code"
    texts = [str(answer).strip() for each in answers for answer in (each if isinstance(each, list) else [each])]
    if texts and all(len(text) == 1 and text in "ABCDEFGHIJ" for text in texts):
        return "choice"
    mathematical = sum(bool(re.search(r"[\d\\=^]", text)) or len(text) == 1 for text in texts)
    return "math" if 2 * mathematical >= len(texts) else "exact"


def _is_tests(answer: Any) -> bool:
    """Tests of programs, or JSON text of them."""
    if isinstance(answer, str):
        try:
            answer = json.loads(answer) if answer.lstrip()[:1] in ("{", "[") else answer
        except (ValueError, RecursionError):
            return False
    if isinstance(answer, list):
        return any(isinstance(each, dict) or str(each).lstrip().startswith("assert ") for each in answer)
    return isinstance(answer, dict) and bool(_TEST_KEYS & answer.keys())


def _asks(text: str) -> str:
    """Where a prompt asks for its answer; empty where it does not say."""
    return next((name for name, pattern in _ASKS.items() if pattern.search(text)), "")
