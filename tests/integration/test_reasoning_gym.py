"""The real package; apart from the unit tests because importing it takes seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rayzero.rewards.base import Case, Context, Score
from rayzero.rewards.registry import Capacity, build_reward
from rayzero.services.data.sources.registry import read_rows
from rayzero.services.data.sources.rows import to_prompt
from rayzero.services.schema.config.data import ReasoningGymSource
from rayzero.services.schema.config.reward_components import ReasoningGymComponent
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import VerdictStatus
from tests.corpus.judging import laid_bait
from tests.system import needs
from tests.unit.rewards.cases import case

pytestmark = needs("reasoning_gym", "pycosat")
HOSTILE = Path(__file__).parents[1] / "corpus/hostile/answers.jsonl"
EVALUATING = {
    "spiral_matrix": "[1, 2, 3]", "string_insertion": "['A', 'B']", "binary_matrix": "[[0, 1], [1, 0]]",
    "n_queens": "[['_', 'Q'], ['Q', '_']]", "countdown": "1 + 2", "puzzle24": "(3 + 3) * 4 * 1",
    "simple_integration": "X**2/2 + C", "intermediate_integration": "log(x)/2 - cos(3*x)*x",
    "polynomial_multiplication": "4*x**2 - x*(2 + y)",
}  # fmt: skip
"""Tasks whose scorers evaluate, with an answer of the form that each is meant to evaluate."""


def test_questions_are_the_same_for_the_same_seed() -> None:
    settings = ReasoningGymSource(task="chain_sum", num_prompts=3, seed=5)
    rows = read_rows(settings)
    assert rows == read_rows(settings)
    assert len(rows) == 3
    made = to_prompt(rows[0], settings, "p")
    assert made.messages[0].content.endswith("Put your final answer in \\boxed{}.")
    assert made.columns["reasoning_gym_task"] == "chain_sum"
    assert json.loads(made.columns["reasoning_gym_entry"])["answer"] == made.answer


def test_a_misspelt_task_or_parameter_is_named() -> None:
    with pytest.raises(RecipeError, match="did you mean chain_sum"):
        read_rows(ReasoningGymSource(task="chainsum"))
    with pytest.raises(RecipeError, match="min_digit"):
        read_rows(ReasoningGymSource(task="chain_sum", parameters={"min_digit": 1}))


async def judge(cases: Sequence[Case], backend: Any = "auto") -> list[Score]:
    reward = build_reward(ReasoningGymComponent(backend=backend), Capacity(num_children=2))
    await reward.start()
    try:
        return await reward.score(cases, Context())
    finally:
        await reward.close()


def entries(task: str, number: int = 1) -> list[dict[str, Any]]:
    rows = read_rows(ReasoningGymSource(task=task, num_prompts=number, seed=1))
    return [json.loads(row.values["reasoning_gym_entry"]) for row in rows]


def boxed(task: str, answer: Any, entry: dict[str, Any]) -> Case:
    columns = {"reasoning_gym_task": task, "reasoning_gym_entry": json.dumps(entry)}
    return case(f"\\boxed{{{answer}}}", columns=columns)


def hostile_answers() -> list[str]:
    return [json.loads(line)["answer"] for line in HOSTILE.read_text().splitlines()]


async def test_the_tasks_own_score_decides() -> None:
    entry = entries("countdown")[0]
    texts = [f"\\boxed{{{entry['answer']}}}", "\\boxed{1}", entry["answer"]]
    cases = [boxed("countdown", entry["answer"], entry), boxed("countdown", 1, entry)]
    cases += [case(texts[2], columns=cases[0].prompt.columns), case("\\boxed{1}")]
    scores = await judge(cases)
    assert [score.status for score in scores[:3]] == [VerdictStatus.CORRECT, VerdictStatus.WRONG, VerdictStatus.WRONG]
    assert "no \\boxed" in scores[2].reason
    assert scores[3].cause == "bad-prompt"


@pytest.mark.parametrize("backend", ["bwrap", "landlock"])
async def test_no_answer_is_executed_and_none_that_would_be_earns_anything(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-token")
    with laid_bait() as bait:
        canary = Path(bait("%CANARY%"))
        # Each task a quarter of the attacks, each attack on two tasks or more; all of all in the long test below.
        chosen = [(task, text) for at, task in enumerate(EVALUATING) for text in hostile_answers()[at % 4 :: 4]]
        cases = [boxed(task, bait(text), entries(task)[0]) for task, text in chosen]
        scores = await judge(cases, backend)
        assert canary.read_text() == "canary"
    # What the scorer calls no answer at all keeps the package's own token for trying.
    earned = {case.text: score for case, score in zip(cases, scores, strict=True) if not score.is_error and score.value}
    assert not {text: score.reason for text, score in earned.items() if (score.value or 0) > 0.05}
    assert not {score.reason for score in scores if "canary-token" in score.reason}


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.filterwarnings("ignore")  # of packages that it imports
async def test_every_task_scores_its_own_answers_and_what_it_is_told_as_it_did() -> None:
    """In a box with the wire armed as outside of it; hostile text only where nothing evaluates it here."""
    from reasoning_gym import get_score_answer_fn
    from reasoning_gym.factory import DATASETS

    cases, wanted = [], []
    for task in sorted(set(DATASETS) - {"composite"}):
        score = get_score_answer_fn(task)
        for entry in entries(task):
            answers = [entry["answer"], "1", "[[1, 2], [3, 4]]", "x = 3, Alice."]
            answers += [EVALUATING[task]] if task in EVALUATING else []
            for answer in answers:
                cases.append(boxed(task, answer, entry))
                wanted.append((task, answer, _outside(score, cases[-1], entry)))
    scores = await judge(cases)
    got = [(task, answer, score.value) for (task, answer, _), score in zip(wanted, scores, strict=True)]
    differ = [(*one, other[2], score.reason) for one, other, score in zip(wanted, got, scores, strict=True)
              if one[2] is not None and one != other and not (one[2] == 0.01 and other[2] == 0)]  # fmt: skip
    assert not differ
    assert sum(value == 1 for _, _, value in got) > len(DATASETS)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.filterwarnings("ignore")  # of packages that it imports
async def test_no_task_executes_an_answer() -> None:
    from reasoning_gym import get_score_answer_fn
    from reasoning_gym.factory import DATASETS

    with laid_bait() as bait:
        canary = Path(bait("%CANARY%"))
        tasks = sorted(set(DATASETS) - {"composite"})
        cases = [
            boxed(task, bait(text), entries(task)[0])
            for task in tasks
            for text in hostile_answers()[:: 1 if task in EVALUATING else 4]
        ]
        scores = await judge(cases)
        assert canary.read_text() == "canary"
    # A scorer that takes any text at all takes these as well.
    lenient = {task for task in tasks if get_score_answer_fn(task)("nothing of the kind", entries(task)[0]) == 1}
    right = {one.prompt.columns["reasoning_gym_task"] for one, score in zip(cases, scores, strict=True)
             if score.status == "correct"}  # fmt: skip
    assert right <= lenient


def _outside(score: Any, one: Case, entry: dict[str, Any]) -> float | None:
    """The package's own score of what the box holds; None where it raises."""
    from rayzero.rewards.math.reading.extract import extract

    found = extract(one.text).answer
    if found is None:
        return 0.0
    try:
        return min(1.0, max(0.0, float(score(found.strip(), entry))))
    except Exception:
        return None
