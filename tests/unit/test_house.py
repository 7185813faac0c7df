"""Rooms, maps, words and the mirror of tests: what lets a stranger find things, held by tests."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.source_tree import LAYERS, ROOT, sources

FLOORS = (
    {"schema"},
    {"store", "data", "planning"},
    {"fleet"},
    {"loop"},
    {"observe"},
    {"run"},
    {"pipeline", "chaos"},
    {"sweep", "bench"},
    {"cli"},
)
"""Rooms of services/, from the ground up: a room imports from the floors below it, and from itself."""

WORDS = {
    r"seats?": "slot",
    r"carriers?": "runner",
    r"shadows?": "double buffer",
    r"companions?": "sidecar",
    r"nobody": "the component is the subject",
    r"whoever": "the component is the subject",
    r"somebody": "the component is the subject",
    r"is told|are told": "the component is the subject",
}
"""Words that meant several things, or that an engineer of the field does not know: and what is said instead."""

TESTS_OF_SEVERAL = {
    "tests/unit/rewards/math/test_data_corpus.py",
    "tests/unit/rewards/math/test_mutants.py",
    "tests/unit/rewards/test_text_corpora.py",
    "tests/unit/rewards/test_hostile_cases.py",
    "tests/unit/rewards/test_patterns.py",
    "tests/unit/rewards/test_settings.py",
    "tests/unit/services/data/sources/test_sources.py",
    "tests/unit/services/observe/api/test_fuzz.py",
    "tests/unit/learner/objective/test_losses.py",
    "tests/unit/learner/objective/test_distillation.py",
    "tests/unit/rewards/kinds/test_servers.py",
    "tests/unit/rewards/math/test_corpus.py",
    "tests/unit/services/store/test_run_files.py",
}
"""Tests of a folder, or of several files together."""


MANY_BRANCHES = 20
"""A module that decides so often deserves a test file of its own."""
TESTED_ELSEWHERE = {
    # Answers are read and compared by many files together: labelled cases, and mutants of them, go through `verify`.
    "rewards/math/": "tests/unit/rewards/math/test_corpus.py",
    # Boxes, links and limits do nothing without real processes.
    "rewards/sandbox/": "tests/integration/test_sandbox_supervision.py",
    "rewards/sandbox/inside/": "tests/unit/rewards/sandbox/inside/test_assertion_runner.py",
    "rewards/code/": "tests/integration/test_sandbox_corpus.py",
    # A session's tokens, messages and calls do nothing without one another.
    # An episode, its process and its environment do nothing without one another.
    "rewards/environments/": "tests/unit/rewards/environments/test_worker.py",
    "rewards/children/fork_server.py": "tests/unit/rewards/children/test_pool.py",
    "rewards/children/work.py": "tests/unit/rewards/kinds/test_custom.py",
    "rewards/grading/case_lines.py": "tests/unit/rewards/grading/test_grade.py",
    "rewards/kinds/choice.py": "tests/unit/rewards/test_text_corpora.py",
    "rewards/kinds/exact.py": "tests/unit/rewards/test_text_corpora.py",
    "rewards/kinds/instruction_rules.py": "tests/unit/rewards/kinds/test_instructions.py",
    "rewards/kinds/latin_languages.py": "tests/unit/rewards/kinds/test_language.py",
    "rewards/kinds/reasoning_gym.py": "tests/integration/test_reasoning_gym.py",
    "rewards/kinds/sql.py": "tests/unit/rewards/test_text_corpora.py",
    # Both ends of the broadcast, with a real engine.
    "learner/broadcast/": "tests/integration/test_weight_sync.py",
    "rollout_workers/broadcast/": "tests/integration/test_weight_sync.py",
    "learner/batch/samples.py": "tests/unit/learner/batch/test_batching.py",
    "learner/model/attention.py": "tests/unit/learner/model/test_policy.py",
    "services/cli/pipeline.py": "tests/integration/test_pipeline.py",
    "services/data/checking/": "tests/unit/services/data/checking/test_check.py",
    # Rows of all published schemas together.
    "services/data/formats/": "tests/unit/services/data/formats/test_registry.py",
    "services/data/sources/rows.py": "tests/unit/services/data/sources/test_sources.py",
    "services/fleet/fleet.py": "tests/unit/services/loop/test_weight_sync.py",
    "services/fleet/placement_groups.py": "tests/integration/test_gpu_placement.py",
    "services/observe/monitoring/dashboards.py": "tests/unit/deploy/test_dashboards.py",
    "services/pipeline/charts.py": "tests/unit/services/pipeline/test_report.py",
    "services/pipeline/fingerprints.py": "tests/unit/services/pipeline/test_pipeline_run.py",
    "services/pipeline/loading.py": "tests/unit/services/pipeline/test_graph.py",
    "services/planning/machine.py": "tests/unit/services/cli/test_doctor.py",
    "services/planning/model_shape.py": "tests/unit/services/planning/test_model_families.py",
    "services/run/run.py": "tests/integration/test_loop.py",
    # What a recipe refuses, all sections together.
    "services/schema/config/learner.py": "tests/unit/services/schema/config/test_loader.py",
    "services/schema/config/recipe.py": "tests/unit/services/schema/config/test_loader.py",
    "services/store/rollout_file.py": "tests/unit/services/store/test_run_files.py",
    "services/store/run_directory.py": "tests/unit/services/store/test_run_files.py",
    # TRL is in its own extra; what it measured is read by the test.
    "benchmarks/trl/": "tests/unit/benchmarks/trl/test_time_to_reward.py",
}
"""Where such a module, or each of a folder's, is tested instead, and by what."""


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_every_room_of_services_has_its_floor() -> None:
    rooms = {source.path.split("/")[1] for source in sources("services") if source.path.count("/") > 1}
    assert rooms == set().union(*FLOORS)


def test_no_room_of_services_imports_from_a_floor_above() -> None:
    wrong = []
    for source in sources("services"):
        if source.path.count("/") < 2:
            continue
        room = source.path.split("/")[1]
        for name, line in source.imports():
            parts = name.split(".")
            if parts[0] == "services" and len(parts) > 1 and parts[1] != room and floor_of(parts[1]) >= floor_of(room):
                wrong.append(f"{source.path}:{line} imports {name}")
    assert not wrong


def test_our_own_modules_are_imported_as_rayzero() -> None:
    """So that a user's `rewards.py`, or another project's `services`, never meets ours."""
    for source in sources(*LAYERS, "benchmarks", "tests"):
        for node, line in _raw_imports(source.path):
            assert node.split(".")[0] not in LAYERS, f"{source.path}:{line} imports {node} without rayzero"


def _raw_imports(path: str) -> list[tuple[str, int]]:
    text = (ROOT / path).read_text(encoding="utf-8")
    pattern = re.compile(r"^\s*(?:from|import) ([\w.]+)", re.MULTILINE)
    return [(match[1], text.count("\n", 0, match.start()) + 1) for match in pattern.finditer(text)]


def _mapped(folder: str, name: str) -> bool:
    """Whether the README of a folder, or of one above it in its layer, names the file."""
    parts = folder.split("/")
    for depth in range(len(parts), 0, -1):
        readme = ROOT.joinpath(*parts[:depth], "README.md")
        path = "/".join((*parts[depth:], name))
        pattern = rf"(?<![\w/]){re.escape(path)}(?![\w.])"
        if readme.is_file() and re.search(pattern, readme.read_text(encoding="utf-8")):
            return True
    return False


@pytest.mark.parametrize("layer", [*LAYERS, "benchmarks"])
def test_every_file_is_on_its_rooms_map(layer: str) -> None:
    missing = [
        source.path
        for source in sources(layer)
        if not source.path.endswith(("__init__.py", "__main__.py"))
        and not _mapped(source.folder, source.path.rpartition("/")[2])
    ]
    assert not missing


@pytest.mark.parametrize("layer", [*LAYERS, "benchmarks"])
def test_maps_name_no_file_that_is_gone(layer: str) -> None:
    gone = []
    for readme in sorted((ROOT / layer).rglob("README.md")):
        for name in re.findall(r"^\| `([\w/]+\.py)`", readme.read_text(encoding="utf-8"), re.MULTILINE):
            if not (readme.parent / name).is_file():
                gone.append(f"{readme.relative_to(ROOT)}: {name}")
    assert not gone


def test_no_class_name_is_used_twice() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for source in sources():
        for node in source.classes():
            homes[node.name].append(f"{source.path}:{node.lineno}")
    twice = {name: places for name, places in homes.items() if len(places) > 1}
    assert not twice


@pytest.mark.parametrize("word", WORDS)
def test_the_words_are_the_fields(word: str) -> None:
    pattern = re.compile(rf"(?<![a-z])(?:{word})(?![a-z])")
    found = []
    for layer in (*LAYERS, "benchmarks", "examples", "tests"):
        for file in sorted((ROOT / layer).rglob("*")):
            if file.suffix not in {".py", ".md"} or "node_modules" in file.parts or file == Path(__file__):
                continue
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
                if pattern.search(_in_words(line)) and not line.lstrip().startswith(("def test_", "async def test_")):
                    found.append(f"{file.relative_to(ROOT)}:{number}: say {WORDS[word]}")
    assert not found


def _in_words(line: str) -> str:
    """`TwoWords` as `two_words`: a word in the name of a class was passed over once. Constants stay as they are."""
    return re.sub("[A-Z](?=[a-z])", lambda capital: capital[0].lower(), re.sub("(?<=[a-z])(?=[A-Z])", "_", line))


def test_unit_tests_mirror_the_tree() -> None:
    strange = []
    for file in sorted((ROOT / "tests/unit").rglob("test_*.py")):
        path = file.relative_to(ROOT).as_posix()
        parts = file.relative_to(ROOT / "tests/unit").parts
        if len(parts) == 1 or parts[0] == "deploy" or path in TESTS_OF_SEVERAL:
            continue
        twin = ROOT.joinpath(*parts[:-1], parts[-1].removeprefix("test_"))
        if not twin.is_file() and not twin.with_suffix("").is_dir():
            strange.append(f"{path}: there is no {Path(*twin.relative_to(ROOT).parts)}")
    assert not strange


def _twin(path: str) -> Path:
    folder, _, name = path.rpartition("/")
    return ROOT / "tests/unit" / folder / f"test_{name}"


def test_every_module_of_logic_has_its_test_file() -> None:
    missing = [
        f"{source.path}: write {_twin(source.path).relative_to(ROOT)}"
        for source in sources(*LAYERS, "benchmarks")
        if source.num_branches >= MANY_BRANCHES
        and not _twin(source.path).is_file()
        and not source.path.startswith(tuple(TESTED_ELSEWHERE))
    ]
    assert not missing


@pytest.mark.parametrize("place", TESTED_ELSEWHERE)
def test_what_is_tested_elsewhere_is_there_and_has_no_test_file_of_its_own(place: str) -> None:
    assert (ROOT / TESTED_ELSEWHERE[place]).is_file()
    modules = [source for source in sources(*LAYERS, "benchmarks") if source.path.startswith(place)]
    assert any(each.num_branches >= MANY_BRANCHES and not _twin(each.path).is_file() for each in modules)


GLOSSARY = re.findall(
    r"^\| [^|]+ \| [^|]+ \| `(\w+)` \| \[([\w/.]+)\]\(\.\./([\w/.]+)\) \|$",
    (ROOT / "docs/glossary.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def test_the_glossary_has_a_name_and_a_home_in_every_row() -> None:
    rows = [line for line in (ROOT / "docs/glossary.md").read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    assert len(GLOSSARY) == sum("---" not in line and not line.startswith("| word |") for line in rows) > 40


WHERE = ("where.md", "where_tokens.md", "journeys.md", "journeys_run.md", "journeys_failures.md")
A_PAGE_AT_ONCE = 24_000
"""Characters of a page that still print in one go: a longer one is read in pieces, or not at all."""
ANSWER = re.compile(
    r"\| (?P<says>[^|]+) \| \[(?P<shown>[^\]]+)\]\(\.\./(?P<path>[\w./-]+)\)(?P<names>(?:,? `\w+`)*) \|"
)


def _answers(page: str) -> list[re.Match[str]]:
    """The rows of one page; a line that looks like one and is none fails."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and "](../" in line]
    answers = [match for line in rows if (match := ANSWER.fullmatch(line))]
    assert len(answers) == len(rows), f"docs/{page}: a row is not `| says | [file](../path) `name`, `name` |`"
    return answers


@pytest.mark.parametrize("page", WHERE)
def test_every_answer_to_where_is_there(page: str) -> None:
    for row in _answers(page):
        file = ROOT / row["path"]
        assert file.is_file() and row["shown"] == file.name, f"docs/{page}: {row['path']}"
        text = file.read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", row["names"]):
            defined = rf"^ *(?:class |(?:async )?def |const )?{name}\b(?: *[:=(\[]|$)"
            assert re.search(defined, text, re.MULTILINE), f"docs/{page}: {row['path']} has no {name}"


@pytest.mark.parametrize("page", WHERE)
def test_a_page_of_where_is_read_in_one_go_and_named_by_the_first(page: str) -> None:
    assert len((ROOT / "docs" / page).read_text(encoding="utf-8")) < A_PAGE_AT_ONCE
    assert page == WHERE[0] or f"]({page})" in (ROOT / "docs" / WHERE[0]).read_text(encoding="utf-8")


def test_no_answer_to_where_stands_twice() -> None:
    said = Counter(row["says"] for page in WHERE for row in _answers(page))
    assert len(said) > 500 and not [text for text, count in said.items() if count > 1]


@pytest.mark.parametrize(("name", "shown", "path"), GLOSSARY)
def test_every_name_of_the_glossary_is_defined_where_it_says(name: str, shown: str, path: str) -> None:
    assert shown == path
    text = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^ *(?:class |(?:async )?def )?{name}\b(?: *[:=(\[]|$)", text, re.MULTILINE)
