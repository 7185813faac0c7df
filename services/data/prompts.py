"""Data sources -> the prompts to train on and the prompts held out.

rows (services/data/sources) ─► PromptTable ─► held out: a fixed sample, the same for every seed
                                    └──► PromptMix ─► PromptStream.next(), shuffled each epoch by the seed
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from rayzero.services.data.formats.problem import RowFault
from rayzero.services.data.keys import KEY_BITS, short_key
from rayzero.services.data.prompt_table import Examined, check_source, examine
from rayzero.services.data.sources.conversations import check_text
from rayzero.services.data.sources.registry import read_rows
from rayzero.services.data.sources.rows import to_prompt
from rayzero.services.data.stream import MixPart, PromptMix
from rayzero.services.schema.config.data import DataSettings, DataSource
from rayzero.services.schema.config.training import ColdStartSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

HasRubric = Callable[[str], bool]

HELD_OUT_SHARE = 0.1
"""Of the training prompts that are held out where the recipe names no others and no number."""


def load_prompts(
    data: DataSettings, num_held_out: int, has_rubric: HasRubric | None = None
) -> tuple[PromptMix, tuple[Prompt, ...]]:
    """Look at every source; return what to train on and at most `num_held_out` prompts that are never trained on.

    Which prompts are held out depends on their text alone, not on a seed, their order or how many are evaluated: runs
    can be compared, and a larger evaluation meets no prompt that a run with a smaller one was trained on.
    `has_rubric`: whether prompts of a source can be judged.

    Raises:
        RecipeError: a source cannot be read, a row is broken (names file and line), or too few prompts are left.
    """
    # What is held out by text of prompts that are made takes all of them.
    whole = not data.held_out and (num_held_out > 0 or bool(data.num_held_out))
    train = _examined(data.train, "train", has_rubric, made_whole=whole)
    if data.held_out:
        apart = _examined(data.held_out, "held_out", has_rubric, whole=True)
        held_out = np.unique(np.concatenate([part.keys for part in apart]))
    elif num_held_out == 0 and not data.num_held_out:
        apart, held_out = train, np.empty(0, dtype=np.uint64)
    else:
        apart = train
        held_out = _split_off(train, data.num_held_out, num_held_out)
    refuse = bool(data.held_out) and data.on_overlap == "refuse"
    parts = tuple(_without(index, part, held_out, refuse, has_rubric) for index, part in enumerate(train))
    chosen = [_first_with(apart, int(key)) for key in held_out[:num_held_out]]
    return PromptMix(parts=parts), tuple(chosen)


def load_demonstrations(settings: ColdStartSettings) -> tuple[tuple[Prompt, str], ...]:
    """The (prompt, completion) pairs of a cold start, in the source's order.

    Raises:
        RecipeError: the source cannot be read, or a row has no completion.
    """
    return read_demonstrations(settings.source, settings.completion_column)


def read_demonstrations(source: DataSource, completion_column: str) -> tuple[tuple[Prompt, str], ...]:
    """The (prompt, completion) pairs of one source, in its order.

    Raises:
        RecipeError: the source cannot be read, or a row has no completion.
    """
    demonstrations = []
    for row in read_rows(source):
        completion = row.values.get(completion_column)
        if not isinstance(completion, str) or not completion:
            raise RecipeError(
                f"{row.origin}: column {completion_column!r} must hold the demonstrated completion; "
                "give it, or name another in completion_column"
            )
        try:
            check_text(f"column {completion_column!r}", completion)
        except RowFault as fault:
            raise RecipeError(f"{row.origin}: {fault}") from None
        prompt = to_prompt(row, source, f"demonstration/{row.number}", needs_answer=False)
        demonstrations.append((prompt, completion))
    return tuple(demonstrations)


def _examined(
    sources: Sequence[DataSource],
    split: str,
    has_rubric: HasRubric | None,
    *,
    whole: bool = False,
    made_whole: bool = False,
) -> tuple[Examined, ...]:
    return tuple(
        examine(
            source,
            split if len(sources) == 1 else f"{split}/{index}",
            has_rubric,
            whole=whole or (made_whole and source.kind == "reasoning_gym"),
        )
        for index, source in enumerate(sources)
    )


def _split_off(parts: Sequence[Examined], count: int | None, num_asked: int) -> NDArray[np.uint64]:
    """The first `count` keys; without a count, those in the lowest HELD_OUT_SHARE of all keys that there can be."""
    distinct = np.unique(np.concatenate([part.keys for part in parts]))
    chosen = distinct[:count] if count else distinct[distinct < np.uint64(HELD_OUT_SHARE * 2**KEY_BITS)]
    if count is None and len(chosen) < num_asked:
        more = f"set data.num_held_out to {num_asked} or more, or " if len(distinct) > num_asked else ""
        raise RecipeError(
            f"evaluation.num_prompts is {num_asked}, and {len(chosen)} prompts are held out: a tenth, chosen by their "
            f"text, of the {len(distinct)} in data.train. Set evaluation.num_prompts to at most {len(chosen)}, or "
            f"{more}give a file of held-out prompts in data.held_out"
        )
    if len(distinct) <= len(chosen):
        raise RecipeError(
            f"data.train holds {len(distinct)} different prompts, and {len(chosen)} are to be held out of them: give "
            "more, lower data.num_held_out, or name data.held_out"
        )
    return chosen


def _first_with(parts: Sequence[Examined], key: int) -> Prompt:
    return next(prompt for part in parts if (prompt := part.first_with(key)) is not None)


def _without(
    index: int, part: Examined, held_out: NDArray[np.uint64], refuse: bool, has_rubric: HasRubric | None
) -> MixPart:
    """What is left to train on of a source."""
    shared = np.flatnonzero(np.isin(part.keys, held_out))
    if refuse and len(shared):
        example = part.prompts[int(shared[0] if part.places is None else part.places[shared[0]])]
        raise RecipeError(
            f"data.train.{index}: {len(shared)} of its prompts are also held out, e.g. {example.prompt_id}: remove "
            "them, or set data.on_overlap: drop_from_train"
        )
    if len(shared) == len(part.keys):
        raise RecipeError(f"data.train.{index}: all of its prompts are also held out: none is left to train on")
    fingerprint = f"{part.fingerprint} without {xxhash.xxh3_64_hexdigest(shared.tobytes())}"
    if part.places is None:
        kept = part.prompts.without(part.keys, held_out)
        return MixPart(weight=part.source.weight, prompts=kept, fingerprint=fingerprint)
    keys = frozenset(int(key) for key in held_out)
    return MixPart(
        weight=part.source.weight,
        prompts=part.prompts,
        fingerprint=fingerprint,
        admits=_gate(index, keys, refuse, has_rubric),
        unread=part.unread,
        looked_at=tuple(int(place) for place in part.places) if part.prompts.rows.is_made else None,
    )


def _gate(index: int, held_out: frozenset[int], refuse: bool, has_rubric: HasRubric | None) -> Callable[[Prompt], bool]:
    """The checks of a source that is too large to be read whole, made of each prompt that is drawn."""

    def admits(prompt: Prompt) -> bool:
        check_source(prompt, prompt.prompt_id, has_rubric)
        if short_key(prompt) not in held_out:
            return True
        if refuse:
            raise RecipeError(
                f"data.train.{index}: prompt {prompt.prompt_id} is also held out: remove it, or set data.on_overlap: "
                "drop_from_train"
            )
        return False

    return admits
