"""The prompts to train on as an endless stream, with a cursor from which it goes on after a resume."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import xxhash

from rayzero.services.data.keys import content_digest
from rayzero.services.data.mix_order import MixOrder
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import Group, Prompt

CHANGED = "the training prompts changed since the checkpoint: restore them, or start a new run"

SAMPLE_PROMPTS = 10_000
"""Of each source, for checks that need not see every prompt."""

REMEMBERED_DRAWS = 256
"""So many of the newest prompts are held against the files after a resume, of sources that were not read whole."""


class Prompts(Protocol):
    """Prompts by their place: a tuple, or a table that makes each when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Prompt: ...

    def __iter__(self) -> Iterator[Prompt]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class MixPart:
    """The prompts of one source and their share of the mix."""

    weight: float
    prompts: Prompts
    fingerprint: str = ""
    """Of what was read of them; empty: it is made of the prompts themselves."""
    admits: Callable[[Prompt], bool] | None = None
    """For a source that was not read whole: whether a prompt may be trained on, asked when it is drawn. Raises
    RecipeError for one that should have been refused before the start."""
    fit: Callable[[Prompt], Prompt | None] | None = None
    """For such a source: a prompt as it fits `data.max_prompt_tokens`, None where it is left out."""
    unread: str = ""
    """What of the source was not looked at; empty: it was read whole."""
    looked_at: tuple[int, ...] | None = None
    """Places of the prompts that any check looks at, of a source that makes them; None: whichever it likes."""

    def sample(self, count: int) -> Iterator[Prompt]:
        """At most `count` prompts, spread over the source."""
        places = self.looked_at or range(0, len(self.prompts), -(-len(self.prompts) // count) or 1)
        return (self.prompts[place] for place in places)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptMix:
    """What is trained on. Its length is the number of prompts."""

    parts: tuple[MixPart, ...]

    def __len__(self) -> int:
        return sum(len(part.prompts) for part in self.parts)

    def __iter__(self) -> Iterator[Prompt]:
        return (prompt for part in self.parts for prompt in part.prompts)

    def sample(self) -> Iterator[Prompt]:
        """At most SAMPLE_PROMPTS of each source, spread over it."""
        for part in self.parts:
            yield from part.sample(SAMPLE_PROMPTS)

    @property
    def unread(self) -> tuple[str, ...]:
        """What was not looked at, a sentence a source."""
        return tuple(part.unread for part in self.parts if part.unread)


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
        self._drawn: deque[tuple[int, int, str]] = deque(maxlen=REMEMBERED_DRAWS)
        """(source, place, digest) of prompts of sources that were not read whole."""
        self._num_too_long = 0

    def next(self) -> Prompt:
        """The next prompt; never ends.

        Raises:
            RecipeError: it is the first that cannot be used of a source that was not read whole before the start.
        """
        part, place = self._order.next()
        for _ in range(len(self._parts[part].prompts)):
            prompt = self._parts[part].prompts[place]
            if self._admitted(part, place, prompt):
                if (fitted := self._fitted(part, prompt)) is not None:
                    return fitted
                self._num_too_long += 1
            place = self._order.next_of(part)
        raise RecipeError(
            f"data.train.{part}: all of its prompts are also held out, or longer than data.max_prompt_tokens: none is "
            "left to train on"
        )

    def learn(self, group: Group) -> None:
        """Nothing: every prompt has its turn."""

    def counts(self) -> Mapping[str, int]:
        """Prompts that were passed over as they were drawn: those that are too long."""
        return {"too_long": self._num_too_long} if self._num_too_long else {}

    def find(self, prompt_id: str) -> Prompt:
        """The prompt of an id.

        Raises:
            RecipeError: there is none.
        """
        source, _, number = prompt_id.rpartition("/")
        for index, part in enumerate(self._parts):
            if len(part.prompts) and part.prompts[0].prompt_id.rpartition("/")[0] == source and number.isdecimal():
                # Numbers rise with the places; where no row was left out, one more than its place is a prompt's.
                place = int(number) - 1
                if place >= len(part.prompts) or part.prompts[place].prompt_id != prompt_id:
                    place = bisect_left(range(len(part.prompts)), int(number), key=lambda at: _number(part.prompts[at]))
                if place < len(part.prompts) and part.prompts[place].prompt_id == prompt_id:
                    return self._fitted(index, part.prompts[place]) or part.prompts[place]
        raise RecipeError(f"{CHANGED} (there is no {prompt_id})")

    def state_dict(self) -> dict[str, Any]:
        """The cursor, JSON-like."""
        return {
            "given": list(self._order.given),
            "seed": self._seed,
            "data": self._fingerprint,
            "drawn": [list(each) for each in self._drawn],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a cursor.

        Raises:
            RecipeError: it was taken from other prompts or another seed, so that going on would repeat or skip some.
        """
        if state["data"] != self._fingerprint:
            raise RecipeError(CHANGED)
        if state["seed"] != self._seed:
            raise RecipeError(f"the checkpoint was made with seed {state['seed']}, not {self._seed}: start a new run")
        self._drawn.clear()
        for part, place, digest in state.get("drawn", ()):
            prompt = self._parts[part].prompts[place]
            if content_digest(prompt) != digest:
                raise RecipeError(f"{CHANGED}; e.g. {prompt.prompt_id}")
            self._drawn.append((part, place, digest))
        self._order.given = [int(count) for count in state["given"]]

    def _fitted(self, part: int, prompt: Prompt) -> Prompt | None:
        fit = self._parts[part].fit
        return prompt if fit is None else fit(prompt)

    def _admitted(self, part: int, place: int, prompt: Prompt) -> bool:
        admits = self._parts[part].admits
        if admits is None:
            return True
        self._drawn.append((part, place, content_digest(prompt)))
        return admits(prompt)


def _number(prompt: Prompt) -> int:
    return int(prompt.prompt_id.rpartition("/")[2])


def _fingerprint(mix: PromptMix) -> str:
    """Changes with any prompt, its answer or its place that was read, or a weight."""
    digest = xxhash.xxh3_128()
    for part in mix.parts:
        digest.update(f"{part.weight}\n{part.fingerprint}\n".encode())
        if not part.fingerprint:
            for prompt in part.prompts:
                digest.update(f"{prompt.prompt_id} {content_digest(prompt)}\n".encode())
    return digest.hexdigest()
