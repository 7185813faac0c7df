"""`rayzero regrade RUN`: today's reward code over yesterday's rollouts. Says which verdicts come out otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rayzero.rewards.scorer import Scorer
from rayzero.services.cli.client import find_directory
from rayzero.services.loop.episode_verdicts import judged
from rayzero.services.observe.browse.rollout_tokens import TokenTexts
from rayzero.services.observe.text import shortened
from rayzero.services.schema.config.loader import validate_recipe
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.messages import Group, Verdict
from rayzero.services.schema.plain import json_text
from rayzero.services.schema.terminal import terminal
from rayzero.services.store.rollout_file import read_groups
from rayzero.services.store.run_directory import RunDirectory

SHOWN = 20
SMALLEST_CHANGE = 1e-6
SIDE_BY_SIDE = 8
SHOWN_LETTERS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """One completion that is judged otherwise now."""

    file: str
    group_id: int
    index: int
    prompt_id: str
    answer: str
    completion: str
    before: float | None
    now: float | None
    status_before: str
    status_now: str
    reason: str


def regrade(run: str, runs: Path, limit: int | None, as_json: bool) -> int:
    """Judge the run's rollouts (the newest `limit` files of them) again; 0 when every verdict is the same, else 1.

    Raises:
        UsageError: no such run, or it has no rollouts.
    """
    directory = RunDirectory(find_directory(run, runs))
    recipe = validate_recipe(directory.recipe() or {}, {}, default_origin=str(directory.file("recipe.yaml")))
    files = sorted(directory.rollouts.glob("*_*.jsonl"), key=_age)[-(limit or 0) :]
    if not files:
        raise UsageError(f"{directory.rollouts} holds no rollouts")
    num_rollouts, flips = asyncio.run(_regrade(recipe, TokenTexts(directory), files))
    if as_json:
        flipped = [asdict(flip) for flip in flips]
        print(json_text({"files": len(files), "rollouts": num_rollouts, "flips": flipped}))
    else:
        _print(terminal(), num_rollouts, len(files), flips)
    return 1 if flips else 0


def _age(file: Path) -> tuple[int, str]:
    """The update, an evaluation's behind it: as text, all updates come after all evaluations."""
    kind, _, number = file.stem.partition("_")
    return int(number) if number.isdecimal() else -1, kind


async def _regrade(recipe: Recipe, tokens: TokenTexts, files: list[Path]) -> tuple[int, list[Flip]]:
    scorer = Scorer(recipe.reward)
    await scorer.start()
    slots = asyncio.Semaphore(SIDE_BY_SIDE)

    async def judge(group: Group) -> tuple[Verdict, ...]:
        async with slots:
            prompt = "".join(tokens.of(group.prompt_token_ids.tolist()) or [group.prompt.messages[-1].content])
            completions = [rollout.completion for rollout in group.rollouts]
            score = partial(scorer.score, group.prompt, prompt)
            if recipe.environment is None:
                return await score(completions)
            return await judged(completions, recipe.environment.truncated, score)

    num_rollouts = 0
    flips: list[Flip] = []
    try:
        for file in files:
            groups = read_groups(file)
            verdicts = await asyncio.gather(*(judge(group) for group in groups))
            for group, now in zip(groups, verdicts, strict=True):
                num_rollouts += len(now)
                flips += _flips(file.name, group, now)
    finally:
        await scorer.close()
    return num_rollouts, flips


def _flips(file: str, group: Group, verdicts: tuple[Verdict, ...]) -> Iterator[Flip]:
    for index, (rollout, now) in enumerate(zip(group.rollouts, verdicts, strict=True)):
        before = rollout.verdict
        same = before.status is now.status and (before.is_error or abs(before.reward - now.reward) < SMALLEST_CHANGE)
        if not same:
            yield Flip(
                file=file,
                group_id=group.group_id,
                index=index,
                prompt_id=group.prompt.prompt_id,
                answer=str(group.prompt.answer),
                completion=rollout.completion.text,
                before=_reward(before),
                now=_reward(now),
                status_before=before.status.value,
                status_now=now.status.value,
                reason=now.reason,
            )


def _reward(verdict: Verdict) -> float | None:
    return None if verdict.is_error else verdict.reward


def _print(console: Console, num_rollouts: int, num_files: int, flips: list[Flip]) -> None:
    console.print(f"{num_rollouts} rollouts of {num_files} files judged again: {len(flips)} come out otherwise")
    if not flips:
        return
    table = Table(show_lines=True)
    for name in ("where", "answer", "before", "now", "why", "completion"):
        table.add_column(name, overflow="fold")
    for flip in flips[:SHOWN]:
        where = f"{flip.file} group {flip.group_id} #{flip.index}"
        before, now = f"{flip.status_before} {flip.before}", f"{flip.status_now} {flip.now}"
        cells = (where, flip.answer, before, now, flip.reason, flip.completion)
        table.add_row(*(escape(shortened(text, SHOWN_LETTERS)) for text in cells))
    console.print(table)
    if len(flips) > SHOWN:
        console.print(f"… and {len(flips) - SHOWN} more; --json has all")
