"""The shipped GPU recipes: each plan fits the machine it is written for, and not the next smaller one."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rayzero.services.cli.app import app
from rayzero.services.fleet.gpu_bundles import ENGINE, LEARNER, Node, bundles_of, fit
from rayzero.services.pipeline.loading import is_pipeline, load_pipeline
from rayzero.services.planning.memory_plan import plan_memory
from rayzero.services.planning.models import describe_model
from rayzero.services.run.plan import make_plan
from rayzero.services.run.preflight import check_lengths, gpus_wanted
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.errors import ActorStartError, RecipeError

RECIPES = Path("deploy/recipes")
GIB = 2**30


def nodes(number: int, num_gpus: int) -> list[Node]:
    return [Node(name=str(index), num_gpus=num_gpus, num_cpus=64) for index in range(number)]


@pytest.mark.parametrize(
    ("name", "machine", "too_small"),
    [
        ("qwen_0.5b_1gpu", nodes(1, 1), nodes(1, 0)),
        ("qwen_0.6b_node", nodes(1, 8), nodes(1, 7)),
        ("qwen_4b_cluster", nodes(3, 8), nodes(2, 8)),
        ("qwen_8b_node", nodes(1, 8), nodes(1, 7)),
        ("search_agent_gpu", nodes(1, 8), nodes(1, 7)),
        ("llama_70b_cluster", nodes(8, 8), nodes(7, 8)),
        ("qwen_30b_a3b_node", nodes(1, 8), nodes(1, 7)),
    ],
)
def test_shipped_recipe_fits_what_it_is_written_for(name: str, machine: list[Node], too_small: list[Node]) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    shape = describe_model(recipe.model.path)
    check_lengths(recipe, shape)
    num_gpus = int(sum(node.num_gpus for node in machine))
    assert gpus_wanted(recipe, num_gpus) == num_gpus
    plan = make_plan(recipe, shape, 1000, 100, num_gpus)
    assert plan.memory is not None
    assert sum(gpu.count for gpu in plan.memory.gpus) == num_gpus
    assert (plan.memory.longest_sequence or 0) >= recipe.rollout.max_model_tokens
    assert sum(actor.count * actor.num_gpus for actor in plan.actors) == num_gpus
    fit(machine, bundles_of(recipe, (LEARNER, ENGINE), int(machine[0].num_gpus)))
    with pytest.raises(ActorStartError, match="needs"):
        fit(too_small, bundles_of(recipe, (LEARNER, ENGINE), 8))


@pytest.mark.parametrize(
    "name",
    [
        "qwen_0.5b_1gpu", "qwen_0.6b_node", "qwen_4b_cluster", "qwen_8b_node", "llama_70b_cluster", "qwen_30b_a3b_node",
        "r1_qwen_gpu", "search_agent_gpu",
    ],
)  # fmt: skip
def test_engines_that_compile_have_time_to_start(name: str) -> None:
    file = RECIPES / f"{name}.yaml"
    recipes = load_pipeline(file).recipes.values() if is_pipeline(file) else [load_recipe(file)]
    for recipe in recipes:
        assert recipe.rollout.enforce_eager or recipe.deadlines.actor_start_s >= 900


def test_the_single_gpu_recipe_also_fits_24_gib_with_checkpointing_and_not_12() -> None:
    recipe = load_recipe(RECIPES / "qwen_0.5b_1gpu.yaml")
    shape = describe_model(recipe.model.path)
    plan = plan_memory(recipe, shape, 24 * GIB)
    plan.check()
    assert plan.activation_checkpointing and not plan.offload_optimizer
    with pytest.raises(RecipeError, match=r"learner and engine needs .* cluster\.colocate: sleep"):
        plan_memory(recipe, shape, 12 * GIB).check()


def test_check_prints_the_plan_of_every_gpu_and_refuses_what_does_not_fit() -> None:
    recipe = str(RECIPES / "qwen_0.5b_1gpu.yaml")
    tasks = (
        "{kind: function, function: 'rayzero.services.data.tasks.numbers:number_after', arguments: {num_prompts: 40}}"
    )
    fewer = [  # reasoning-gym takes seconds to import
        f"data={{train: [{tasks}], num_held_out: 8}}",
        "evaluation.num_prompts=8",
        "reward={rubrics: {default: {accuracy: {kind: math}}}}",
    ]
    result = CliRunner().invoke(app, ["check", recipe, *fewer, "--gpus", "1", "cluster.gpu_memory_bytes=25769803776"])
    assert result.exit_code == 0, result.output
    for part in ("learner and engine: 1 × GPU of 24.0 GiB", "learner's moments", "so that it fits: activations"):
        assert part in " ".join(result.output.split())
    refused = CliRunner().invoke(app, ["check", recipe, *fewer, "--gpus", "0"])
    assert "asks for 1 GPUs" in str(refused.exception)
