"""Tasks of several turns that need no download: rows for environments, and worked turns for a cold start."""

from __future__ import annotations

import random
from collections.abc import Iterator

from rayzero.services.data.tasks.numbers import Row, Split, split_of
from rayzero.services.schema.errors import RecipeError

NUM_GAMES = 10_000
RULES = {
    "role": "system",
    "content": (
        "Use the calculator: write <calc>2*3</calc>, and the result is given to you. Then put it into \\boxed{}."
    ),
}
"""Of the calculator."""
TURN_END = "<|end|>"
"""Of the tiny model: a turn of a worked game ends as one that was sampled does."""


def guess_number(num_prompts: int = 1000, split: Split = "train", seed: int = 0, max_number: int = 16) -> Iterator[Row]:
    """Games for `rayzero.rewards.environments.games:GuessNumber`. Columns: `prompt`, `answer` (the secret).

    Each game has a number of its own in its prompt, which says nothing of the secret: held-out games never occur in
    training.
    """
    games = [game for game in range(NUM_GAMES) if split_of(f"game {game}") == split]
    if num_prompts > len(games):
        raise RecipeError(f"guess_number: only {len(games)} such games exist, and {num_prompts} are asked for")
    rng = random.Random(f"guess_number {split} {seed}")
    for game in rng.sample(games, num_prompts):
        yield {"prompt": f"{game:04d}?", "answer": str(rng.randint(1, max_number))}


def guess_number_demonstrations(
    num_prompts: int = 4000, seed: int = 0, max_number: int = 16, max_turns: int = 4, heeded_share: float = 0.3
) -> Iterator[Row]:
    """Turns of games in which a hint is heeded now and then, and forgotten else: they teach a model from nothing the
    form of a guess and what a hint could be good for; that it pays is left to reward. Columns: `prompt`, `completion`.

    `heeded_share`: of the guesses that keep to what the hints leave.
    """
    rng = random.Random(f"guess_number_demonstrations {seed}")
    games = [game for game in range(NUM_GAMES) if split_of(f"game {game}") == "train"]

    def guess(low: int, high: int) -> int:
        return rng.randint(low, high) if rng.random() < heeded_share else rng.randint(1, max_number)

    for _ in range(num_prompts):
        secret, text, low, high = rng.randint(1, max_number), f"{rng.choice(games):04d}?", 1, max_number
        for _ in range(rng.randrange(max_turns)):
            number = guess(low, high)
            if number == secret:
                continue
            text += f"{number:02d}{TURN_END}{'+' if number < secret else '-'}"
            low, high = (max(low, number + 1), high) if number < secret else (low, min(high, number - 1))
        yield {"prompt": text, "completion": f"{guess(low, high):02d}"}


def products(
    num_prompts: int = 1000, split: Split = "train", seed: int = 0, min_number: int = 100, max_number: int = 999
) -> Iterator[Row]:
    """What is a · b? For `rayzero.rewards.environments.games:Calculator`, which a sentence and one finished exchange
    before it show a small model. Columns: `messages`, `answer`.
    """
    rng = random.Random(f"products {split} {seed}")
    seen: set[tuple[int, int]] = set()
    for _ in range(100 * num_prompts):
        if len(seen) == num_prompts:
            return
        left, right = rng.randint(min_number, max_number), rng.randint(min_number, max_number)
        pair = (min(left, right), max(left, right))
        if pair in seen or split_of(f"product {pair[0]} {pair[1]}") != split:
            continue
        seen.add(pair)
        shown = rng.randint(min_number, max_number), rng.randint(min_number, max_number)
        yield {
            "messages": [RULES, *_shown(*shown), {"role": "user", "content": _ask(left, right)}],
            "answer": str(left * right),
        }
    raise RecipeError(f"products: there are not {num_prompts} different products: raise max_number")


def _ask(left: int, right: int) -> str:
    return f"What is {left} * {right}?"


def _shown(left: int, right: int) -> list[dict[str, str]]:
    """A whole exchange: the question, the call, what the calculator says, the answer."""
    return [
        {"role": "user", "content": _ask(left, right)},
        {"role": "assistant", "content": f"<calc>{left}*{right}</calc>"},
        {"role": "user", "content": f"<result>{left * right}</result>"},
        {"role": "assistant", "content": f"\\boxed{{{left * right}}}"},
    ]
