"""The thin side of the code reward: specs in, scores out. What programs may do is tested with the sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from rayzero.rewards.base import Context
from rayzero.rewards.code.judge import CodeJudge, CodeVerdict
from rayzero.rewards.kinds.code_reward import CodeReward, spec_of
from rayzero.rewards.sandbox.client import SandboxRefusedError
from rayzero.services.schema.errors import ActorStartError
from rayzero.services.schema.messages import VerdictStatus
from tests.unit.rewards.cases import case

SPEC = {"language": "python", "tests": [{"stdin": "", "expected": ""}]}
ROWS = ({"status": "pass", "seconds": 0.25}, {"status": "fail", "seconds": 0.5})


class ScriptedJudge(CodeJudge):
    """Returns a verdict, records what it was asked."""

    def __init__(self, result: CodeVerdict | Exception) -> None:
        self.result = result
        self.asked: list[tuple[str, Any, bool]] = []

    async def start(self) -> str:
        if isinstance(self.result, Exception):
            raise self.result
        return "bwrap"

    async def run(self, text: str, spec: Any, *, is_program: bool = False) -> CodeVerdict:
        self.asked.append((text, spec, is_program))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def verdict(status: VerdictStatus, score: float, cause: str = "") -> CodeVerdict:
    fields: dict[str, Any] = {"passed": 1, "total": 2, "reason": "why", "seconds": 9.0, "tests": ROWS}
    return CodeVerdict(status=status, score=score, cause=cause, **fields)


async def test_a_verdict_becomes_a_score() -> None:
    judge = ScriptedJudge(verdict(VerdictStatus.WRONG, 0.5))
    (score,) = await CodeReward(judge).score([case("text", answer=SPEC)], Context())
    assert (score.value, score.status, score.reason, score.tests) == (0.5, VerdictStatus.WRONG, "why", ROWS)
    assert score.seconds == 0.75, "waiting for a CPU is not work"
    assert judge.asked == [("text", SPEC, False)]


async def test_an_error_keeps_its_cause() -> None:
    judge = ScriptedJudge(verdict(VerdictStatus.ERROR, 0.0, "toolchain"))
    (score,) = await CodeReward(judge).score([case("text", answer=SPEC)], Context())
    assert score.is_error and score.cause == "toolchain"


async def test_partial_credit_is_asked_for_unless_the_prompt_says_otherwise() -> None:
    judge = ScriptedJudge(verdict(VerdictStatus.WRONG, 0.5))
    strict = {**SPEC, "scoring": "all"}
    await CodeReward(judge, partial=True).score([case("a", answer=SPEC), case("b", answer=strict)], Context())
    assert [spec["scoring"] for _, spec, _ in judge.asked] == ["fraction", "all"]


async def test_a_bare_program_only_where_the_tool_says_so() -> None:
    judge = ScriptedJudge(verdict(VerdictStatus.CORRECT, 1.0))
    await CodeReward(judge).score([case("a", answer=SPEC, columns={"bare": True})], Context())
    await CodeReward(judge, bare_column="bare").score([case("a", answer=SPEC, columns={"bare": True})], Context())
    assert [bare for _, _, bare in judge.asked] == [False, True]


async def test_a_prompt_without_tests_is_the_prompts_fault() -> None:
    (score,) = await CodeReward(ScriptedJudge(RuntimeError("never asked"))).score([case("a", answer="9")], Context())
    assert score.cause == "bad-prompt"


async def test_where_nothing_isolates_it_refuses_at_the_start_and_never_scores() -> None:
    reward = CodeReward(ScriptedJudge(SandboxRefusedError({"bwrap": "bubblewrap is not installed"})))
    with pytest.raises(ActorStartError, match="apt install bubblewrap"):
        await reward.start()
    (score,) = await reward.score([case("a", answer=SPEC)], Context())
    assert score.cause == "sandbox"


async def test_a_real_program_end_to_end() -> None:
    from rayzero.rewards.kinds.code_reward import code_reward

    reward = code_reward(num_parallel=1)
    try:
        spec = {"language": "python", "tests": [{"assert": "assert double(2) == 4"}]}
        right = "<think>t</think>\n```python\ndef double(x):\n    return 2 * x\n```\n"
        texts = [right, right.replace("2 *", "3 *"), "no program"]
        scores = await reward.score([case(text, answer=spec) for text in texts], Context())
        assert [score.value for score in scores] == [1.0, 0.0, 0.0]
    finally:
        await reward.close()


@pytest.mark.parametrize(
    ("answer", "spec"),
    [
        ('{"inputs": ["1"], "outputs": ["2"]}', {"tests": {"inputs": ["1"], "outputs": ["2"]}}),
        ('["assert f(1) == 2"]', {"tests": ["assert f(1) == 2"]}),
        (["assert f(1) == 2"], {"tests": ["assert f(1) == 2"]}),
        ({"test_cases": [], "language": "cpp"}, {"tests": {"test_cases": [], "language": "cpp"}, "language": "cpp"}),
        ('{"tests": [], "language": "go"}', {"tests": [], "language": "go"}),
        ("42", None),
        ("no JSON", None),
        (None, None),
    ],
)
def test_tests_alone_and_json_text_are_specs(answer: Any, spec: Any) -> None:
    assert spec_of(answer) == spec
