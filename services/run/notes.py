"""What a recipe asks for that has no effect, or another one than its name says: told by `rayzero check`."""

from __future__ import annotations

from collections.abc import Iterator

from rayzero.learner.objective.losses.grpo import GrpoLoss
from rayzero.services.observe.text import as_count
from rayzero.services.planning.machine import has_bfloat16
from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.planning.usual_rate import HIGHEST, LOWEST, usual_rate
from rayzero.services.schema.config.learner import KlSettings, OptimizerSettings
from rayzero.services.schema.config.recipe import Recipe

SEQUENCE_LOSSES = ("gspo", "rloo")


def notes(recipe: Recipe, shape: ModelShape | None = None) -> tuple[str, ...]:
    """Sentences for the user; none where all is as it says. `shape`: of the model, where it is known."""
    return (
        *_learner(recipe),
        *_reference(recipe),
        *_schedule(recipe),
        *(() if shape is None else _rate_of_size(recipe, shape)),
        *_components(recipe),
        *_dropping(recipe),
        *_watch(recipe),
        *_evaluation(recipe),
        *slow_here(recipe),
    )


def slow_here(recipe: Recipe) -> Iterator[str]:
    """What this machine computes much slower than it could."""
    on_cpu, dtype = recipe.rollout.engine_device == "cpu", recipe.model.dtype
    if on_cpu and dtype == "float16":
        yield "in model.dtype float16 CPUs compute several times as slowly as in what auto would choose"
    if on_cpu and dtype == "bfloat16" and not has_bfloat16():
        yield (
            "this machine's CPU has no instructions for bfloat16, in which model.dtype has the run compute: with "
            "model.dtype=float32, which auto would choose, it is several times as fast here"
        )


def _learner(recipe: Recipe) -> Iterator[str]:
    learner = recipe.learner
    loss, correction = learner.loss, learner.correction.name
    if learner.steps_per_update == 1 and correction != "rollout_as_old" and loss.name != "custom":
        yield (
            f"each batch is trained on in one optimizer step: the policy has not moved when its loss is taken, so the "
            f"clips and gates of {loss.name} never act, and it differs from the other losses in denominators and "
            "advantage alone; learner.minibatches, learner.inner_epochs or learner.correction: rollout_as_old give "
            "them something to do"
        )
    of_sequences = loss.name in SEQUENCE_LOSSES or (isinstance(loss, GrpoLoss) and loss.ratio == "sequence")
    if of_sequences and correction == "token_truncation":
        yield (
            f"{loss.name} has one value a completion, and learner.correction: token_truncation weighs it by the mean "
            "of its tokens' truncated ratios: one token of ratio 4 in a hundred is hardly seen; sequence_truncation "
            "weighs by the completion's own ratio"
        )


def _reference(recipe: Recipe) -> Iterator[str]:
    kl, plain = recipe.learner.kl, KlSettings()
    inert = [name for name in ("estimator", "place", "unbiased") if getattr(kl, name) != getattr(plain, name)]
    if inert and kl.beta == 0:
        yield f"learner.kl has {' and '.join(inert)}, which do nothing while learner.kl.beta is 0"


def _schedule(recipe: Recipe) -> Iterator[str]:
    yield from of_rate(recipe.learner.optimizer, recipe.training.num_updates, "learner.optimizer", "training")
    if (start := recipe.cold_start) is not None:
        yield from of_rate(start.optimizer, start.num_updates, "cold_start.optimizer", "cold_start")


def of_rate(optimizer: OptimizerSettings, updates: int, key: str, loop: str) -> Iterator[str]:
    """What an optimizer's keys do not do over so many updates, which `loop` counts."""
    # A supervised floor has a default: only one that was asked for is spoken of.
    is_asked = optimizer.floor != type(optimizer).model_fields["floor"].default
    if optimizer.decay == "constant" and is_asked:
        yield f"{key}.floor: {optimizer.floor:g} has no effect with decay: constant"
    if optimizer.warmup_updates >= updates:
        yield (
            f"{key}.warmup_updates: {optimizer.warmup_updates} is not fewer than {loop}.num_updates ({updates}): the "
            "rate is still climbing at the end"
        )
    if optimizer.decay != "constant" and optimizer.floor == 0 and updates > optimizer.warmup_updates + 1:
        yield (
            f"{key}.decay: {optimizer.decay} to floor 0 ends at rate 0: update {updates} changes nothing; "
            "floor: 0.1 has it learn"
        )


def _rate_of_size(recipe: Recipe, shape: ModelShape) -> Iterator[str]:
    rate, adapters = recipe.learner.optimizer.learning_rate, recipe.learner.lora is not None
    usual = usual_rate(shape.num_parameters, has_adapters=adapters)
    if LOWEST * usual <= rate <= HIGHEST * usual:
        return
    what = "moves next to nothing" if rate < usual else "may undo what the model has learnt"
    yield (
        f"learner.optimizer.learning_rate: {rate:g} {what}: for {'adapters of ' if adapters else ''}a model of "
        f"{as_count(shape.num_parameters)} parameters {usual:g} is usual"
    )


def _components(recipe: Recipe) -> Iterator[str]:
    if recipe.learner.advantage_name != "component_normalised":
        return
    for name, rubric in recipe.reward.rubrics.items():
        if sum(component.weight != 0 for component in rubric.values()) != 1:
            continue
        yield (
            f"learner.advantage: component_normalised normalises every component by itself, and rubric {name} has one: "
            "of its groups it is std_normalised, scaled by the batch"
        )


def _dropping(recipe: Recipe) -> Iterator[str]:
    training, learner = recipe.training, recipe.learner
    if training.skip_uniform_groups and not learner.loss.rests_without_advantage:
        yield (
            f"training.skip_uniform_groups drops groups whose rewards are equal, which learner.loss: "
            f"{learner.loss.name} may learn from"
        )
    elif training.skip_uniform_groups and learner.advantage_name == "batch_normalised":
        yield (
            "training.skip_uniform_groups drops groups whose rewards are equal, which learner.advantage: "
            "batch_normalised compares with those of the others: the prompts that are always solved, and those that "
            "never are, teach nothing then"
        )
    if training.num_spare_groups or (training.on_stale == "drop" and not training.is_synchronous):
        yield (
            "training.over_provision and on_stale: drop leave out groups that take long, mostly those with long "
            "completions: look at length_bias in metrics.jsonl"
        )


def _watch(recipe: Recipe) -> Iterator[str]:
    if recipe.rollout.canary_every_syncs == 0 and not recipe.training.is_synchronous:
        yield (
            "rollout.canary_every_syncs: 0 leaves learner.watch blind: where generation and learning overlap hardly a "
            "token was sampled from the weights that train on it, and the KL at equal weights is taken from the canary"
        )


def _evaluation(recipe: Recipe) -> Iterator[str]:
    evaluation = recipe.evaluation
    if evaluation.temperature == 0.0 and evaluation.num_completions > 1:
        yield (
            f"evaluation.temperature 0 gives the same answer {evaluation.num_completions} times: "
            "num_completions: 1 measures the same"
        )
    held_out = None if recipe.data.held_out else recipe.data.num_held_out
    if held_out is not None and held_out < evaluation.num_prompts:
        yield (
            f"evaluation.num_prompts: {evaluation.num_prompts} is more than data.num_held_out: {held_out} holds out: "
            f"{held_out} are evaluated"
        )
