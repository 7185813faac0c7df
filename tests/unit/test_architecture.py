"""The rules of the house that a reader relies on, checked on the syntax trees of every source file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = {"services", "rollout_workers", "rewards", "learner"}
LAYERS = INSTALLED | {"benchmarks"}
SIBLINGS = {"rollout_workers", "rewards", "learner"}
MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 75

RAY = {
    "services/run/placement.py",
    "services/fleet/placement_groups.py",
    "services/fleet/remote.py",
    "services/planning/health.py",
    "services/cli/submit.py",
}
REWARD_MODELS = {"rewards/kinds/reward_model.py", "rewards/kinds/reward_model_training.py"}


@dataclass(frozen=True)
class Source:
    """One file: what it imports, and where."""

    path: str
    tree: ast.Module = field(repr=False, compare=False)
    num_lines: int = field(compare=False)

    @property
    def layer(self) -> str:
        return self.path.split("/")[0]

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def imports(self, *, at_import_time: bool = False) -> Iterator[tuple[str, int]]:
        """Every imported module with its line; `at_import_time` leaves out functions and TYPE_CHECKING blocks."""
        yield from _imports(self.tree, deep=not at_import_time)


def _imports(node: ast.AST, deep: bool) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"relative import on line {child.lineno}"
            yield str(child.module), child.lineno
            # `from services import fleet` imports the module rayzero.services.fleet.fleet.
            yield from ((f"{child.module}.{alias.name}", child.lineno) for alias in child.names)
        elif not deep and _runs_later(child):
            continue
        else:
            yield from _imports(child, deep)


def _runs_later(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return True
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@cache
def sources() -> tuple[Source, ...]:
    found = []
    for layer in sorted(LAYERS):
        for file in sorted((ROOT / layer).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            path = file.relative_to(ROOT).as_posix()
            found.append(Source(path, ast.parse(text, filename=path), text.count("\n")))
    return tuple(found)


def where(module: str, allowed: set[str], *, also: tuple[str, ...] = ()) -> list[str]:
    """Files that import `module` although they are neither in `allowed` nor below one of `also`."""
    return [
        f"{source.path}:{line}"
        for source in sources()
        for name, line in source.imports()
        if name.split(".")[0] == module and source.path not in allowed and not source.path.startswith(also)
    ]


def test_finds_the_sources() -> None:
    assert {source.layer for source in sources()} == LAYERS
    assert len(sources()) > 40


def test_siblings_never_import_each_other() -> None:
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in sources()
        for name, line in source.imports()
        if source.layer in SIBLINGS and name.split(".")[0] in SIBLINGS - {source.layer}
    ]
    assert not wrong


def test_below_the_control_plane_only_the_schema_is_known() -> None:
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in sources()
        for name, line in source.imports()
        if source.layer in SIBLINGS and name.startswith("services") and not name.startswith("rayzero.services.schema")
    ]
    assert not wrong


def test_the_schema_is_a_leaf() -> None:
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in sources()
        for name, line in source.imports()
        if source.path.startswith("services/schema/")
        and (
            name.split(".")[0] in {"torch", "vllm", "ray", "transformers", *SIBLINGS}
            or (name.startswith("services.") and not name.startswith("rayzero.services.schema"))
        )
    ]
    assert not wrong


def test_what_is_installed_knows_no_benchmarks() -> None:
    """A wheel has none; services/bench/checkout.py finds a checkout's by their path."""
    assert not where("benchmarks", set(), also=("benchmarks/",))


def test_nothing_imports_the_command_line() -> None:
    wrong = [
        s.path
        for s in sources()
        for name, _ in s.imports()
        if name == "rayzero.services.cli.app" and s.path != "services/cli/app.py"
    ]
    assert not wrong


def test_ray_stays_in_the_actors_and_their_placement() -> None:
    actors = {source.path for source in sources() if source.path.endswith("/actor.py")}
    assert not where("ray", RAY | actors)


def test_torch_stays_with_those_who_compute() -> None:
    assert not where("torch", REWARD_MODELS, also=("learner/", "rollout_workers/", "services/bench/", "benchmarks/"))


def test_vllm_stays_with_the_engines() -> None:
    """Its import changes torch for the whole process: the learner's must be torch as it is."""
    assert not where("vllm", set(), also=("rollout_workers/",))


def test_parts_of_the_learner_can_be_measured_with_four_packages() -> None:
    """Where neither Ray nor vLLM is installed; what is imported in functions is another part's."""
    modules = {source.module: source for source in sources()}
    left = {f"rayzero.services.bench.{name}" for name in ("learner", "limits", "length_mix")}
    left |= {f"benchmarks.{name}" for name in ("all", "parts", "random_model", "trl.step")}
    seen, needed = set[str](), set[str]()
    while left:
        module = left.pop()
        seen.add(module)
        for name, _ in modules[module].imports(at_import_time=True):
            if name in modules:
                left |= {name} - seen
            elif name.split(".")[0] not in LAYERS | sys.stdlib_module_names:
                needed.add(name.split(".")[0])
    assert needed == {"torch", "transformers", "numpy", "pydantic"}


def test_services_package_is_empty() -> None:
    assert (ROOT / "services/__init__.py").read_text(encoding="utf-8").strip() == ""


def test_no_import_cycles() -> None:
    known = {source.module for source in sources()}
    edges = {
        source.module: {name for name, _ in source.imports(at_import_time=True) if name in known} - {source.module}
        for source in sources()
    }
    assert not _cycle(edges)


def _cycle(edges: dict[str, set[str]]) -> list[str]:
    """One cycle of a graph, or nothing."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(edges[node]):
            if found := visit(following, [*path, node]):
                return found
        done.add(node)
        return []

    for start in sorted(edges):
        if found := visit(start, []):
            return found
    return []


def test_the_cycle_finder_finds_cycles() -> None:
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert not _cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_files_hold_one_noun() -> None:
    long = [f"{source.path}: {source.num_lines} lines" for source in sources() if source.num_lines > MAX_FILE_LINES]
    assert not long


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{source.path}:{node.lineno} {node.name}: {length} lines"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert not long


def test_files_are_short_in_the_median() -> None:
    lines = sorted(source.num_lines for source in sources() if source.num_lines > 1)
    assert lines[len(lines) // 2] <= 200


@pytest.mark.parametrize("folder", ["deploy"])
def test_deploy_is_data_only(folder: str) -> None:
    assert not list((ROOT / folder).rglob("*.py"))


def test_every_module_says_what_it_is() -> None:
    silent = [s.path for s in sources() if not s.path.endswith("__init__.py") and not ast.get_docstring(s.tree)]
    assert not silent
