"""Data sources -> the prompts to train on, an endless stream with a resumable cursor, and the prompts held out.

rows (services/data/sources) ─► Prompt ─► held out: a fixed sample, the same for every seed
                                └──► PromptMix ─► PromptStream.next(), shuffled each epoch by the seed
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from rayzero.services.data.mix_order import MixOrder
from rayzero.services.data.sources.registry import read_rows
from rayzero.services.data.sources.rows import to_prompt
from rayzero.services.schema.config.data import DataSettings, DataSource
from rayzero.services.schema.config.training import ColdStartSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import Group, Prompt

HELD_OUT_SHARE = 0.1
"""Of the training prompts that are held out where the recipe names no others and no number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixPart:
    """The prompts of one source and their share of the mix."""

    weight: float
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptMix:
    """What is trained on. Its length is the number of prompts."""

    parts: tuple[MixPart, ...]

    def __len__(self) -> int:
        return sum(len(part.prompts) for part in self.parts)

    def __iter__(self) -> Iterator[Prompt]:
        return (prompt for part in self.parts for prompt in part.prompts)


class PromptStream:
    """The next prompt, for ever: sources take turns by weight, each goes through its prompts in a new order an epoch.

    The cursor is how many prompts each source has given: everything else follows from it and the seed (`MixOrder`).
    """

    def __init__(self, mix: PromptMix, seed: int, shuffle: bool = True) -> None:
        """`seed` decides every epoch's order; without `shuffle` prompts come as in their files."""
        self._parts = mix.parts
        self._seed = seed
        sizes, weights = [len(part.prompts) for part in mix.parts], [part.weight for part in mix.parts]
        self._order = MixOrder(sizes, weights, seed, shuffle)
        self._fingerprint = _fingerprint(mix)

    def next(self) -> Prompt:
        """The next prompt; never ends."""
        part, row = self._order.next()
        return self._parts[part].prompts[row]

    def learn(self, group: Group) -> None:
        """Nothing: every prompt has its turn."""

    def counts(self) -> Mapping[str, int]:
        """No prompt is passed over."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The cursor, JSON-like."""
        return {"given": list(self._order.given), "seed": self._seed, "data": self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a cursor.

        Raises:
            RecipeError: it was taken from other prompts or another seed, so that going on would repeat or skip some.
        """
        if state["data"] != self._fingerprint:
            raise RecipeError("the training prompts changed since the checkpoint: restore them, or start a new run")
        if state["seed"] != self._seed:
            raise RecipeError(f"the checkpoint was made with seed {state['seed']}, not {self._seed}: start a new run")
        self._order.given = [int(count) for count in state["given"]]


def load_prompts(data: DataSettings, num_held_out: int) -> tuple[PromptMix, tuple[Prompt, ...]]:
    """Read every source; return what to train on and at most `num_held_out` prompts that are never trained on.

    Which prompts are held out depends on their text alone, not on a seed, their order or how many are evaluated: runs
    can be compared, and a larger evaluation meets no prompt that a run with a smaller one was trained on.

    Raises:
        RecipeError: a source cannot be read, a row is broken (names file and line), or too few prompts are left.
    """
    parts = _read_all(data.train, "train")
    if data.held_out:
        held_out = _distinct(prompt for part in _read_all(data.held_out, "held_out") for prompt in part.prompts)
        parts = _without(parts, held_out, refuse=data.on_overlap == "refuse")
    else:
        held_out = _split_off(parts, data.num_held_out, num_held_out)
        parts = _without(parts, held_out, refuse=False)
    chosen = [held_out[key] for key in sorted(held_out)[:num_held_out]]
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
        prompt = to_prompt(row, source, f"demonstration/{row.number}", needs_answer=False)
        demonstrations.append((prompt, completion))
    return tuple(demonstrations)


def prompt_key(prompt: Prompt) -> str:
    """What makes two prompts one question: roles and texts, white space at their ends and system messages aside."""
    digest = xxhash.xxh3_128()
    for message in prompt.messages:
        if message.role != "system":
            digest.update(f"{message.role}\x1f{message.content.strip()}\x1e".encode())
    return digest.hexdigest()


def _read_all(sources: Sequence[DataSource], split: str) -> tuple[MixPart, ...]:
    parts = []
    for index, source in enumerate(sources):
        prefix = split if len(sources) == 1 else f"{split}/{index}"
        prompts = tuple(to_prompt(row, source, f"{prefix}/{row.number}") for row in read_rows(source))
        parts.append(MixPart(weight=source.weight, prompts=prompts))
    return tuple(parts)


def _distinct(prompts: Iterable[Prompt]) -> dict[str, Prompt]:
    found: dict[str, Prompt] = {}
    for prompt in prompts:
        found.setdefault(prompt_key(prompt), prompt)
    return found


def _split_off(parts: Sequence[MixPart], count: int | None, num_asked: int) -> dict[str, Prompt]:
    """The first `count` by key; without a count, those whose key lies in the lowest HELD_OUT_SHARE of all keys."""
    distinct = _distinct(prompt for part in parts for prompt in part.prompts)
    chosen = sorted(distinct)[:count] if count else [key for key in sorted(distinct) if _place(key) < HELD_OUT_SHARE]
    if count is None and len(chosen) < num_asked:
        raise RecipeError(
            f"data.train holds {len(distinct)} different prompts, of which {len(chosen)} are held out (a tenth, by "
            f"their text alone), and evaluation.num_prompts asks for {num_asked}: lower it, say in data.num_held_out "
            "how many are held out, in this run and in all that are compared with it, or name data.held_out"
        )
    if len(distinct) <= len(chosen):
        raise RecipeError(
            f"data.train holds {len(distinct)} different prompts, and {len(chosen)} are to be held out of them: give "
            "more, lower data.num_held_out, or name data.held_out"
        )
    return {key: distinct[key] for key in chosen}


def _place(key: str) -> float:
    """Where a key lies among all that there can be: 0 … 1."""
    return int(key, 16) / float(16 ** len(key))


def _without(parts: Sequence[MixPart], held_out: dict[str, Prompt], refuse: bool) -> tuple[MixPart, ...]:
    kept = []
    for index, part in enumerate(parts):
        prompts = tuple(prompt for prompt in part.prompts if prompt_key(prompt) not in held_out)
        if refuse and len(prompts) < len(part.prompts):
            example = next(prompt for prompt in part.prompts if prompt_key(prompt) in held_out)
            raise RecipeError(
                f"data.train.{index}: {len(part.prompts) - len(prompts)} of its prompts are also held out, e.g. "
                f"{example.prompt_id}: remove them, or set data.on_overlap: drop_from_train"
            )
        if not prompts:
            raise RecipeError(f"data.train.{index}: all of its prompts are also held out: none is left to train on")
        kept.append(MixPart(weight=part.weight, prompts=prompts))
    return tuple(kept)


def _fingerprint(mix: PromptMix) -> str:
    """Changes with any prompt, its place, or a weight."""
    digest = xxhash.xxh3_128()
    for part in mix.parts:
        digest.update(f"{part.weight}\n".encode())
        for prompt in part.prompts:
            digest.update(f"{prompt.prompt_id} {prompt_key(prompt)}\n".encode())
    return digest.hexdigest()
