"""The rejection_sample stage: prompts in shards ─► k completions each ─► verdicts ─► sieve ─► mix ─► dataset.jsonl.

A shard is written whole or not at all, so a killed stage samples at most one shard again. Every row of the dataset says
where it comes from: model and its digest, prompt, which of the k, verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rayzero.services.data.prompts import read_demonstrations
from rayzero.services.pipeline.completion_filter import Sieve
from rayzero.services.pipeline.context import StageContext, StageOutcome
from rayzero.services.pipeline.fingerprints import digest
from rayzero.services.run.inference import workers
from rayzero.services.run.preflight import prepare
from rayzero.services.schema.config.pipeline import RejectionSampleStage
from rayzero.services.schema.config.recipe import EVALUATION_SEEDS
from rayzero.services.schema.errors import RayzeroError
from rayzero.services.schema.messages import GroupRequest, Prompt, Sampling
from rayzero.services.store.json_lines import append_lines, read_lines
from rayzero.services.store.rollout_file import rollout_lines


def run_rejection_sample(context: StageContext) -> StageOutcome:
    """Sample what is not sampled yet, then filter, mix and write the dataset.

    Raises:
        RayzeroError: not one completion passed; says what they failed by.
    """
    settings = context.settings
    assert isinstance(settings, RejectionSampleStage)
    model = context.models[settings.model]
    stream = prepare(context.recipe, trained=False).train_prompts
    prompts = [stream.next() for _ in range(settings.num_prompts)]
    shards = [
        (context.work / f"shard_{start:08d}.jsonl", start, prompts[start : start + settings.prompts_per_shard])
        for start in range(0, len(prompts), settings.prompts_per_shard)
    ]
    left = [shard for shard in shards if not shard[0].is_file()]
    if len(left) < len(shards):
        context.say(f"{len(shards) - len(left)} of {len(shards)} shards are there already")
    if left:
        asyncio.run(_sample(context, settings, model, left))
    sieve = Sieve(settings.keep)
    candidates = [row for file, _, _ in shards for row in read_lines(file)]
    kept = [row for group in _by_group(candidates) for row in sieve.best(group)]
    if not kept:
        faults = ", ".join(f"{count} {reason}" for reason, count in sieve.reasons.most_common())
        raise RayzeroError(
            f"none of {len(candidates)} completions of {settings.model} passed ({faults}): there is nothing to learn "
            "from; train that model longer, raise num_completions, or relax keep"
        )
    origin = {"model": settings.model, "model_digest": digest(model)}
    rows = [_dataset_row(row, origin) for row in kept]
    mixed = _mixed_in(settings, len(rows), context.recipe.seed)
    return _write(context, [*rows, *mixed], len(candidates), sieve)


async def _sample(
    context: StageContext,
    settings: RejectionSampleStage,
    model: Path,
    shards: Sequence[tuple[Path, int, Sequence[Prompt]]],
) -> None:
    recipe = context.recipe
    async with workers(recipe, model, context.console, context.work / "logs") as runner:
        for number, (file, start, prompts) in enumerate(shards, start=1):
            requests = [
                GroupRequest(
                    group_id=start + place, prompt=prompt, sampling=_sampling(context, settings, start + place)
                )
                for place, prompt in enumerate(prompts)
            ]
            groups = await asyncio.gather(*(runner.run(request) for request in requests))
            temporary = file.with_suffix(".tmp")
            append_lines(temporary, [line for group in groups for line in rollout_lines(group)], replace=True)
            temporary.replace(file)
            context.say(f"shard {number} of {len(shards)}: {len(prompts)} prompts × {settings.num_completions}")


def _sampling(context: StageContext, settings: RejectionSampleStage, place: int) -> Sampling:
    """Seeds by the prompt's place alone: a shard that is sampled again is the same."""
    sampling = context.recipe.rollout.sampling
    return Sampling(
        num_completions=settings.num_completions,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        stop=sampling.stop,
        seed=(context.recipe.seed << 32) + 2 * EVALUATION_SEEDS - (place + 1) * settings.num_completions,
    )


def _by_group(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["group_id"], []).append(row)
    return list(groups.values())


def _dataset_row(row: dict[str, Any], origin: dict[str, str]) -> dict[str, Any]:
    return {
        "messages": row["messages"],
        "completion": row["completion"],
        "source": row["source"],
        **({} if row["answer"] is None else {"answer": row["answer"]}),
        "provenance": {
            **origin,
            "prompt_id": row["prompt_id"],
            "index": row["index"],
            "verdict": {key: row[key] for key in ("status", "reward", "components", "reason")},
        },
    }


def _mixed_in(settings: RejectionSampleStage, num_rows: int, seed: int) -> list[dict[str, Any]]:
    """As many demonstrations as make `mix_share` of the whole; each source gives its weight's part, none twice."""
    if not settings.mix:
        return []
    wanted = round(num_rows * settings.mix_share / (1 - settings.mix_share))
    total = sum(source.weight for source in settings.mix)
    rows = []
    for number, source in enumerate(settings.mix):
        pairs = read_demonstrations(source, "completion")
        count = min(len(pairs), round(wanted * source.weight / total))
        for index in sorted(np.random.default_rng([seed, number]).permutation(len(pairs))[:count]):
            prompt, completion = pairs[int(index)]
            messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
            provenance = {"mixed_in": source.name, "row": int(index) + 1}
            rows.append(
                {"messages": messages, "completion": completion, "source": source.name, "provenance": provenance}
            )
    return rows


def _write(context: StageContext, rows: list[dict[str, Any]], num_candidates: int, sieve: Sieve) -> StageOutcome:
    artefact = context.directory / "dataset.jsonl"
    temporary = artefact.with_suffix(".tmp")
    append_lines(temporary, rows, replace=True)
    temporary.replace(artefact)
    num_sampled = sum("model" in row["provenance"] for row in rows)
    figures = {
        "candidates": num_candidates,
        "kept": num_sampled,
        "mixed_in": len(rows) - num_sampled,
        "rows": len(rows),
        "left_out": dict(sieve.reasons.most_common()),
    }
    return StageOutcome(artefact=artefact, figures=figures)
