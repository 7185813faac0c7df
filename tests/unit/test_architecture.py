"""Who may import what, and how large files and functions may be, checked on the syntax trees of every source file."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.source_tree import LAYERS, ROOT, sources

SIBLINGS = {"rollout_workers", "rewards", "learner"}
OURS = {*LAYERS, "benchmarks"}
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60

RAY = {
    "services/run/placement.py",
    "services/run/ray_session.py",
    "services/fleet/local_ray.py",
    "services/fleet/placement_groups.py",
    "services/fleet/remote.py",
    "services/planning/health.py",
    "services/cli/submit.py",
}
PICKLES = {
    "rewards/children/fork_server.py",  # a pipe to the process's own child
    "rewards/children/pool.py",
    "services/data/sources/rows.py",  # tries whether a row can be sent, and reads none
    "learner/update/checkpoint.py",  # names what torch's reader raises where it refuses code
}
UNSAFE = {"pickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
VLLM = {"learner/broadcast/sender.py"}
LOSS_SETTINGS = ("learner.objective.advantage", "learner.objective.losses")
REWARD_MODELS = {"rewards/kinds/reward_model.py", "rewards/kinds/reward_model_training.py"}

READERS_OF_COMPLETIONS = {
    "rewards/base.py", "rewards/scorer.py", "rewards/grading/grade.py", "services/cli/regrade.py",
    "services/pipeline/statistics.py", "services/run/inference.py", "services/store/episode_rows.py",
    "services/store/rollout_file.py",
    "services/store/run_state.py",
    *(f"rewards/kinds/{kind}.py" for kind in (
        "code_reward", "columns", "format", "instructions", "json_schema", "language", "length", "llm_judge",
        "math_reward", "reasoning_gym", "remote", "reward_model", "sql", "stated_answer")),
}  # fmt: skip
"""Who may touch a completion's text in a process with secrets, a network or the run directory. Each treats it as data:
hands it on, cuts it up with linear patterns, or gives it to a child or a box that judges."""
RUNS_TEXT = {
    "rewards/children/fork_server.py",  # items of its own pool, and the functions that a recipe names
    "rewards/sandbox/inside/",  # in a box
}
"""Who may turn text into code or objects, in all of the rewards."""
TEXT_TO_CODE = {
    "eval", "exec", "compile", "__import__", "importlib.import_module", "pickle.load", "pickle.loads", "marshal.loads",
    "yaml.load", "os.system", "runpy.run_path", "runpy.run_module", "sympy.sympify", "sympify", "parse_expr",
}  # fmt: skip


def where(module: str, allowed: set[str], *, also: tuple[str, ...] = ()) -> list[str]:
    """Files that import `module` although they are neither in `allowed` nor below one of `also`."""
    return [
        f"{source.path}:{line}"
        for source in sources(*OURS)
        for name, line in source.imports()
        if name.split(".")[0] == module and source.path not in allowed and not source.path.startswith(also)
    ]


def test_finds_the_sources() -> None:
    assert {source.layer for source in sources()} == set(LAYERS)
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
        if source.layer in SIBLINGS and name.startswith("services") and not name.startswith("services.schema")
    ]
    assert not wrong


def test_the_schema_is_a_leaf() -> None:
    """But for the losses: each is one file, a section of the recipe that says what it computes."""
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in sources()
        for name, line in source.imports()
        if source.path.startswith("services/schema/")
        and not (source.path == "services/schema/config/learner.py" and name.startswith(LOSS_SETTINGS))
        and (
            name.split(".")[0] in {"torch", "vllm", "ray", "transformers", *SIBLINGS}
            or (name.startswith("services.") and not name.startswith("services.schema"))
        )
    ]
    assert not wrong


def test_a_recipe_with_its_losses_is_read_without_torch() -> None:
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in sources("learner")
        if source.module.startswith(LOSS_SETTINGS)
        for name, line in source.imports(at_import_time=True)
        if name.split(".")[0] not in {"numpy", "pydantic", *sys.stdlib_module_names}
        and not name.startswith((*LOSS_SETTINGS, "services.schema.config", "services.schema.errors"))
    ]
    assert not wrong


def test_what_is_installed_knows_no_benchmarks() -> None:
    """A wheel has none; services/bench/checkout.py finds a checkout's by their path."""
    assert not where("benchmarks", set(), also=("benchmarks/",))


def test_nothing_imports_the_command_line() -> None:
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in sources()
        for name, line in source.imports()
        if name.startswith("services.cli.") and not source.path.startswith("services/cli/")
    ]
    assert not wrong


def test_completion_text_is_touched_where_it_is_listed() -> None:
    touching = {source.path for source in sources() if "text" in _attributes_of(source.tree, {"case", "completion"})}
    assert touching == READERS_OF_COMPLETIONS


def test_no_text_becomes_code_outside_of_a_box() -> None:
    wrong = [
        f"{source.path}:{node.lineno} calls {name}"
        for source in sources("rewards")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in TEXT_TO_CODE
        if not source.path.startswith(tuple(RUNS_TEXT))
    ]
    assert not wrong


def _attributes_of(tree: ast.AST, names: set[str]) -> set[str]:
    """`completion.text`, `rollout.completion.text`: attributes of what has one of these names."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] in names
    }


def test_ray_stays_in_the_actors_and_their_placement() -> None:
    actors = {source.path for source in sources() if source.path.endswith("/actor.py")}
    assert not where("ray", RAY | actors)


def test_torch_stays_with_those_who_compute() -> None:
    assert not where("torch", REWARD_MODELS, also=("learner/", "rollout_workers/", "services/bench/", "benchmarks/"))


@pytest.mark.parametrize("module", sorted(UNSAFE))
def test_nothing_that_is_read_can_bring_code(module: str) -> None:
    """Neither from a socket, nor from a store, nor from a run directory."""
    assert not where(module, PICKLES)


def test_loaders_that_can_run_code_are_told_not_to() -> None:
    wrong = []
    for source in sources(*OURS):
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            given = {each.arg: ast.unparse(each.value) for each in node.keywords}
            called = ast.unparse(node.func)
            careless = called == "torch.load" and given.get("weights_only") != "True"
            careless |= called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load") or "allow_pickle" in given
            # Both pickle whatever they are given, over the process group.
            careless |= called.endswith(("broadcast_object_list", "all_gather_object", "scatter_object_list"))
            careless |= given.get("trust_remote_code") == "True"
            wrong += [f"{source.path}:{node.lineno} {called}"] * careless
    assert not wrong


def test_vllm_stays_with_the_engines() -> None:
    assert not where("vllm", VLLM, also=("rollout_workers/",))


def test_vllm_is_imported_where_it_is_used() -> None:
    """So that the module can be imported, and its pure parts tested, where vLLM is not installed."""
    wrong = [
        f"{source.path}:{line}"
        for source in sources("learner")
        for name, line in source.imports(at_import_time=True)
        if name.split(".")[0] == "vllm"
    ]
    assert not wrong


def test_parts_of_the_learner_can_be_measured_with_four_packages() -> None:
    """Where neither Ray nor vLLM is installed; what is imported in functions is another part's."""
    modules = {source.module: source for source in sources(*OURS)}
    left = {f"services.bench.{name}" for name in ("learner", "limits", "length_mix")}
    left |= {f"benchmarks.{name}" for name in ("all", "parts", "random_model", "trl.step")}
    seen, needed = set[str](), set[str]()
    while left:
        module = left.pop()
        seen.add(module)
        for name, _ in modules[module].imports(at_import_time=True):
            if name in modules:
                left |= {name} - seen
            elif name.split(".")[0] not in OURS | sys.stdlib_module_names:
                needed.add(name.split(".")[0])
    assert needed == {"torch", "transformers", "numpy", "pydantic"}


def test_services_package_is_empty() -> None:
    assert (ROOT / "services/__init__.py").read_text(encoding="utf-8").strip() == ""


def test_no_import_cycles() -> None:
    known = {source.module for source in sources(*OURS)}
    edges = {
        source.module: {name for name, _ in source.imports(at_import_time=True) if name in known} - {source.module}
        for source in sources(*OURS)
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
    long = [f"{s.path}: {s.num_lines} lines" for s in sources(*OURS) if s.num_lines > MAX_FILE_LINES]
    assert not long


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{source.path}:{node.lineno} {node.name}: {length} lines"
        for source in sources(*OURS)
        for node in source.functions()
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert not long


def test_files_are_short_in_the_median() -> None:
    lines = sorted(source.num_lines for source in sources() if source.num_lines > 1)
    assert lines[len(lines) // 2] <= 200


@pytest.mark.parametrize("folder", ["deploy"])
def test_deploy_is_data_only(folder: str) -> None:
    assert not list((ROOT / folder).rglob("*.py"))


def test_every_module_says_what_it_is() -> None:
    silent = [s.path for s in sources(*OURS) if not s.path.endswith("__init__.py") and not ast.get_docstring(s.tree)]
    assert not silent
