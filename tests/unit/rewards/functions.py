"""Custom rewards as users write them, well and badly."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any


def length(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """TRL's own example."""
    return [float(len(completion)) for completion in completions]


def matches(completions: list[str], answer: list[str], level: list[int]) -> list[float | None]:
    """Asks for columns by name, without **kwargs."""
    return [
        None if each is None else float(completion == wanted) * each
        for completion, wanted, each in zip(completions, answer, level, strict=True)
    ]


def greets(completions: list[str], who: list[str], **columns: Any) -> list[float]:
    """Needs a column, and no answer."""
    return [float(name in completion) for completion, name in zip(completions, who, strict=True)]


def chat(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """Sees messages."""
    assert prompts[0][0]["role"] == "user"
    return [float(completion[0]["content"] == "hi") for completion in completions]


async def later(completions: list[str], scale: float = 1.0, **columns: Any) -> list[float]:
    """An async function."""
    await asyncio.sleep(0.01)
    return [scale] * len(completions)


def stuck_on(completions: list[str], **columns: Any) -> list[float]:
    """Hangs, raises or dies where the completion says so."""
    for completion in completions:
        if completion == "sleep":
            time.sleep(60)
        if completion == "spin in c":
            7**40_000_000 % 10
        if completion == "raise":
            raise ValueError("no score for this one")
        if completion == "die":
            os._exit(9)
    return [1.0] * len(completions)


def rank(completions: list[str], **columns: Any) -> list[float]:
    """Compares the completions of a group."""
    if "raise" in completions:
        raise ValueError("cannot rank")
    order = sorted(completions, key=len)
    return [order.index(completion) / len(order) for completion in completions]


def too_few(completions: list[str], **columns: Any) -> list[float]:
    """Forgets one."""
    return [1.0] * (len(completions) - 1)


def not_a_number(completions: list[str], **columns: Any) -> list[float]:
    """A division that went wrong."""
    return [float("nan")] * len(completions)


def needs(completions: list[str], difficulty: list[int]) -> list[float]:
    """Asks for a column that the data may not have."""
    return [float(each) for each in difficulty]


def write_pid(completions: list[str], path: str, **columns: Any) -> list[float]:
    """Tells who it is, then hangs."""
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)
    return [0.0] * len(completions)


def one_for_all(completions: list[str], **_: Any) -> list[float]:
    """Whatever was asked."""
    return [1.0]


def by_index(completions: list[str], **_: Any) -> dict[int, float]:
    """A dict is as long as its keys are many."""
    return dict.fromkeys(range(len(completions)), 1.0)


def with_info(completions: list[str], **_: Any) -> tuple[list[float], dict[str, int]]:
    """A pair, as others want it."""
    return [1.0] * len(completions), {"calls": 1}


def as_text(completions: list[str], **_: Any) -> list[str]:
    """Numbers as text."""
    return ["1.0"] * len(completions)


def nothing(completions: list[str], **_: Any) -> None:
    """A forgotten return."""


def prints(completions: list[str], **_: Any) -> list[float]:
    """As everybody debugs a reward."""
    print("REWARD PRINT", completions[0])
    return [1.0] * len(completions)


def logs(
    completions: list[str], log_metric: Any, log_extra: Any, trainer_state: Any, wrong: bool = False
) -> list[float]:
    """Says more than its scores, in TRL's way."""
    log_metric("chars", sum(map(len, completions)) / len(completions))
    log_metric("nothing", float("nan"))
    log_extra("shouted", [completion.upper() for completion in completions][wrong:])
    return [float(trainer_state.global_step)] * len(completions)
