"""`rayzero bench rewards --peers`: rayzero's math verifier beside other projects' graders, on labelled answers.

Each grader judges every case in a process of its own, one after the other. One that takes longer than its limit is
killed with all it started and begun again: a hang. What raises judges its case wrong, as it would in training.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import math_corpus
from benchmarks.rewritings import rewritings
from rayzero.services.bench.table import show
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.import_root import IMPORT_ROOT
from tests.corpus.mutants import mutants

CHILD = Path(__file__).with_name("grader_process.py")
LIMIT_S = 10.0
START_S = 120.0
"""Until a grader has imported what it needs."""
FOLDERS = {"verl": "verl", "verl-prime": "verl", "open-instruct": "open-instruct", "prm800k": "prm800k"}
"""Where `--peers DIR` has each grader's checkout. Those that are installed need none."""
NAMES = ("rayzero", "math-verify", *FOLDERS)
MUTANTS_OF_ONE = 3


@dataclass(kw_only=True, slots=True)
class Score:
    """How a grader did."""

    right: int = 0
    false_positives: list[str] = field(default_factory=list)
    """Kinds of the cases, for wrong answers that it took for right."""
    false_negatives: list[str] = field(default_factory=list)
    hangs: int = 0
    raised: int = 0
    seconds: float = 0.0
    worst_s: float = 0.0

    def add(self, case: math_corpus.CorpusCase, said: dict[str, Any] | None) -> None:
        """Count a reply; None where the grader had to be killed."""
        correct = bool(said and said.get("correct"))
        self.hangs += said is None
        self.raised += said is not None and "raised" in said
        taken_s = LIMIT_S if said is None else float(said["seconds"])
        self.seconds += taken_s
        self.worst_s = max(self.worst_s, taken_s)
        if correct == case.correct:
            self.right += 1
        else:
            (self.false_positives if correct else self.false_negatives).append(case.kind)

    def figures(self, cases: Sequence[math_corpus.CorpusCase]) -> dict[str, Any]:
        """In the table's words."""
        return {
            "right_percent": 100 * self.right / len(cases),
            "false_positives": len(self.false_positives),
            "false_negatives": len(self.false_negatives),
            "hangs": self.hangs,
            "raised": self.raised,
            "worst_s": self.worst_s,
            "verdicts_per_s": len(cases) / self.seconds,
        }


class GraderProcess:
    """A grader in a process of its own. Raises LookupError where it is not there."""

    def __init__(self, name: str, folder: Path | None, python: str) -> None:
        self._command = [python, str(CHILD), name, str(folder.resolve()) if folder else ""]
        self._start()

    def judge(self, completion: str, gold: str) -> dict[str, Any] | None:
        """Its reply; None where it hung or died, and was begun again."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write((json.dumps([completion, gold]) + "\n").encode())
            self._stdin.flush()
        line = self._line(LIMIT_S)
        if line:
            reply: dict[str, Any] = json.loads(line)
            return reply
        self.close()
        self._start()
        return None

    def close(self) -> None:
        """End it with everything that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(IMPORT_ROOT)} if self._command[2] == "rayzero" else None,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        said = json.loads(self._line(START_S) or b'{"missing": "it did not start"}')
        if "missing" in said:
            self.close()
            raise LookupError(said["missing"])

    def _line(self, limit_s: float) -> bytes:
        """The next line; empty where none came in time. A reply is one line, and never more than one is asked for."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._stdout, selectors.EVENT_READ)
            return self._stdout.readline() if waiting.select(limit_s) else b""


def run(peers: Path, python: str | None, golds: Path | None, limit: int, as_json: bool = False) -> dict[str, Any]:
    """Judge the corpus, and pairs made from published gold answers, with every grader that is there."""
    sets = {"corpus": math_corpus.load_corpus(math_corpus.CORPUS)[:limit]}
    if golds is not None:
        sets[golds.name] = published(golds, limit)
    figures: dict[str, Any] = {}
    for title, cases in sets.items():
        figures[title] = {
            "cases": len(cases),
            "of_them_wrong": sum(not case.correct for case in cases),
            "graders": compare(cases, peers, python),
        }
    show("Math graders", list(_rows(figures)), figures, as_json)
    return figures


def compare(cases: Sequence[math_corpus.CorpusCase], peers: Path, python: str | None = None) -> dict[str, Any]:
    """Every grader's figures on these cases; of one that is not there, why."""
    found: dict[str, Any] = {}
    for name in NAMES:
        own = name == "rayzero" or python is None
        folder = peers / FOLDERS[name] if name in FOLDERS else None
        try:
            grader = GraderProcess(name, folder, sys.executable if own or python is None else python)
        except LookupError as missing:
            found[name] = {"missing": str(missing)}
            continue
        score = Score()
        try:
            for case in cases:
                score.add(case, grader.judge(case.completion, case.gold))
        finally:
            grader.close()
        found[name] = score.figures(cases)
    return found


def published(path: Path, limit: int, seed: int = 0) -> list[math_corpus.CorpusCase]:
    """Pairs of a file of published gold answers: each as it stands, written otherwise, and changed in one place.

    Lines with a `completion` and an `expected` verdict are taken as they are.
    """
    cases: dict[tuple[str, str], math_corpus.CorpusCase] = {}
    choose = random.Random(seed)
    for case in _cases(path, choose):
        if case.gold.strip():
            cases.setdefault((case.completion, case.gold), case)
    found = list(cases.values())
    choose.shuffle(found)
    return found[:limit]


def _cases(path: Path, choose: random.Random) -> Iterator[math_corpus.CorpusCase]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            gold = row.get("answer", row.get("gold"))
            if "expected" in row:
                yield _case("as labelled", row["completion"], str(gold), row["expected"] == "correct")
                continue
        except (ValueError, KeyError, AttributeError) as error:
            raise RecipeError(f"{path}:{number}: not a row with an answer ({error!r})") from error
        if not isinstance(gold, str | int | float):
            raise RecipeError(f"{path}:{number}: `answer` must be a gold answer, not {type(gold).__name__}")
        yield from _pairs(str(gold), choose)


def _pairs(gold: str, choose: random.Random) -> Iterator[math_corpus.CorpusCase]:
    yield _case("as it stands", f"\\boxed{{{gold}}}", gold, True)
    for kind, answer in rewritings(gold):
        yield _case(kind, f"\\boxed{{{answer}}}", gold, True)
    changed = sorted({each for each in mutants(gold) if each.strip() and not _same(each, gold)})
    for answer in choose.sample(changed, min(MUTANTS_OF_ONE, len(changed))):
        yield _case("changed in one place", f"\\boxed{{{answer}}}", gold, False)


def _same(mutant: str, gold: str) -> bool:
    """Changes that may change no meaning are left out: a unit, a sign before 0 or ±, a bracket at infinity, a name."""
    if gold.lstrip("-$").rstrip("$") in ("0", "0.0") or any(mark in gold for mark in ("\\pm", "infty", "C_", "c_")):
        return True
    return "".join(sorted(mutant)) == "".join(sorted(gold)) or any(
        mutant.count(sign) < gold.count(sign) for sign in ("\\%", "^\\circ", "$")
    )


def _case(kind: str, completion: str, gold: str, correct: bool) -> math_corpus.CorpusCase:
    return math_corpus.CorpusCase(kind=kind, completion=completion, gold=gold, correct=correct)


def _rows(figures: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for title, found in figures.items():
        yield title, f"{found['cases']} cases, {found['of_them_wrong']} of them wrong answers"
        for name, each in found["graders"].items():
            if "missing" in each:
                yield f"  {name}", f"not there: {each['missing']}"
                continue
            yield (
                f"  {name}",
                f"{each['right_percent']:.2f} % right, {each['false_positives']} false positives, "
                f"{each['false_negatives']} false negatives, {each['hangs']} hangs, {each['raised']} raised, "
                f"{each['verdicts_per_s']:.0f} verdicts/s, slowest {each['worst_s']:.2f} s",
            )
