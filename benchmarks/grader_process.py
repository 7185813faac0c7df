"""Judges with another project's grader: a line of JSON (completion, gold) comes in, a line of JSON goes out.

Run by path, by the Python that has that grader's packages, so it imports the standard library alone. The graders are
loaded from checkouts that the user has; of each only the module that judges is run, not its package's own imports.
"""

import importlib
import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

Grader = Callable[[str, str], bool]


def load(name: str, folder: Path | None) -> Grader:
    """The grader of this name. Raises ImportError or FileNotFoundError where it is not there."""
    if name == "rayzero":
        verify = importlib.import_module("rayzero.rewards.math.verify").verify
        return lambda completion, gold: bool(verify(completion, gold).correct)
    if name == "math-verify":
        package = importlib.import_module("math_verify")
        return lambda completion, gold: bool(package.verify(package.parse(f"${gold}$"), package.parse(completion)))
    if folder is None or not folder.is_dir():
        raise FileNotFoundError(f"no checkout in {folder}")
    return _OF_CHECKOUTS[name](folder)


def _verl_math(checkout: Path) -> Grader:
    score = _module(checkout, "verl.utils.reward_score.math_reward").compute_score
    return lambda completion, gold: score(completion, gold) == 1


def _verl_prime(checkout: Path) -> Grader:
    """Each comparison of it runs in a process of its own, as verl's `timeout_limit` has it."""
    sys.modules["verl.utils.metric"] = types.ModuleType("verl.utils.metric")  # the real one imports torch
    sys.modules["verl.utils.metric"].Metric = object  # type: ignore[attr-defined]
    score = _module(checkout, "verl.utils.reward_score.prime_math").compute_score
    return lambda completion, gold: bool(score(completion, gold)[0])


def _open_instruct(checkout: Path) -> Grader:
    """What its verifier of math does with a boxed answer: either of its two comparisons counts."""
    utils = _module(checkout, "open_instruct.math_utils")

    def grader(completion: str, gold: str) -> bool:
        box = utils.last_boxed_only_string(completion)
        answer = completion if box is None else utils.remove_boxed(box)
        return bool(utils.is_equiv(answer, gold) or utils.hendrycks_is_equiv(answer, gold))

    return grader


def _prm800k(checkout: Path) -> Grader:
    """It grades answers, not completions: the box is taken out here."""
    grade = _module(checkout / "prm800k", "grading.grader").grade_answer
    return lambda completion, gold: bool(grade(_last_box(completion), gold))


_OF_CHECKOUTS: dict[str, Callable[[Path], Grader]] = {
    "verl": _verl_math,
    "verl-prime": _verl_prime,
    "open-instruct": _open_instruct,
    "prm800k": _prm800k,
}


def _module(root: Path, name: str) -> Any:
    """One module of a checkout, without what the packages above it import."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        above = ".".join(parts[:depth])
        folder = root.joinpath(*parts[:depth])
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not there")
        package = types.ModuleType(above)
        package.__path__ = [str(folder)]
        sys.modules.setdefault(above, package)
    return importlib.import_module(name)


def _last_box(completion: str) -> str:
    start = completion.rfind("\\boxed{")
    if start < 0:
        return ""
    depth, begin = 0, start + len("\\boxed")
    for index in range(begin, len(completion)):
        depth += (completion[index] == "{") - (completion[index] == "}")
        if depth == 0:
            return completion[begin + 1 : index]
    return ""


def main(name: str, folder: str) -> None:
    """Serve until the input ends. What a grader prints goes nowhere."""
    del sys.path[0]  # this folder, whose files' names are those of packages, too
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def reply(**said: Any) -> None:
        replies.write(json.dumps(said) + "\n")
        replies.flush()

    try:
        grader = load(name, Path(folder) if folder else None)
        grader("\\boxed{1}", "1")
    except Exception as error:
        reply(missing=f"{type(error).__name__}: {error}")
        return
    reply(ready=True)
    for line in sys.stdin:
        completion, gold = json.loads(line)
        start = time.perf_counter()
        try:
            reply(correct=grader(completion, gold), seconds=time.perf_counter() - start)
        except Exception as error:
            reply(raised=type(error).__name__, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    main(*sys.argv[1:3])
