"""The health of runs of every kind: what is found, how bad it is, and that the guide has a heading for it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rayzero.services.observe.guide import advice
from rayzero.services.observe.run_health import Level, examine

FLEETS = {"rollout": {"target": 2, "serving": 2, "coming": 0, "draining": 0, "restarts": 0}}


def rows(number: int = 40, **figures: Any) -> list[dict[str, Any]]:
    """Updates of a run that learns, but for `figures`: a value, or a function of the share of the run that is done."""
    healthy: dict[str, Any] = {
        "reward_mean": lambda done: 0.2 + 0.6 * done,
        "reward_std": 0.4,
        "train_accuracy": lambda done: 0.2 + 0.6 * done,
        "uniform_group_share": 0.3,
        "entropy": lambda done: 0.9 - 0.5 * done,
        "completion_tokens_mean": 100.0,
        "truncated_share": 0.01,
        "verdict_errors": 0,
        "samples": 64,
        "length_bias": 0.0,
        "nonfinite_logprobs": 0,
        "warnings": (),
    }
    given = healthy | figures
    return [
        {"update": index + 1} | {name: of(index / (number - 1)) if callable(of) else of for name, of in given.items()}
        for index in range(number)
    ]


def held_out(*accuracies: float) -> list[dict[str, float]]:
    return [{"update": 10 * i, "accuracy": value, "standard_error": 0.02} for i, value in enumerate(accuracies)]


def test_a_run_that_learns_is_green_and_says_how_it_goes() -> None:
    health = examine(rows(), held_out(0.2, 0.5, 0.8))
    assert health.level is Level.GREEN and not health.findings
    assert health.line == "the reward rose from 0.25 to 0.75 (means of 8 updates); held-out accuracy 80%"


def test_a_solved_task_is_no_fault() -> None:
    solved = rows(reward_mean=1.0, train_accuracy=0.99, uniform_group_share=0.95, entropy=0.01)
    health = examine(solved, held_out(0.5, 0.99))
    assert health.level is Level.GREEN and "solved" in health.line


@pytest.mark.parametrize(
    ("figures", "level", "topic"),
    [
        ({"reward_mean": 0.0, "reward_std": 0.0, "train_accuracy": 0.0}, "red", "no-reward-differs"),
        ({"reward_mean": 0.02, "train_accuracy": 0.02, "uniform_group_share": 0.9}, "yellow", "too-hard"),
        ({"train_accuracy": 0.01, "reward/accuracy": 0.01, "reward/form": 0.5}, "yellow", "too-hard"),
        # Sampled too coldly: some prompts are right throughout, the others wrong throughout.
        (
            {"reward_mean": 0.6, "train_accuracy": 0.6, "uniform_group_share": 0.95, "entropy": 0.01},
            "yellow",
            "completions-of-a-prompt-are-alike",
        ),
        ({"learning_rate": 1e-12, "grad_norm": 0.5}, "yellow", "the-policy-does-not-move"),
        ({"reward_mean": lambda done: 0.8 - 0.7 * max(0.0, done - 0.5)}, "red", "the-reward-fell"),
        ({"entropy": lambda done: max(0.02, 1 - 2 * done), "train_accuracy": 0.4}, "red", "entropy-collapse"),
        # Of the prompts that are not solved nothing more is learnt; most are.
        ({"entropy": lambda done: max(0.02, 1 - 2 * done), "train_accuracy": 0.85}, "yellow", "entropy-collapse"),
        ({"truncated_share": 0.2}, "yellow", "completions-are-cut-off"),
        ({"truncated_share": 0.7}, "red", "completions-are-cut-off"),
        ({"completion_tokens_mean": lambda done: 100 + 400 * done, "reward_mean": 0.3}, "yellow", "length-blow-up"),
        ({"length_bias": -0.2}, "yellow", "short-completions-are-preferred"),
        ({"verdict_errors": 4}, "yellow", "rewards-fail"),
        ({"verdict_errors": 40}, "red", "rewards-fail"),
        ({"warnings": ("engine and learner differ",)}, "yellow", "engine-and-learner-disagree"),
        ({"warnings": ("all rewards are equal",), "grad_norm": 0.0}, "yellow", "no-reward-differs"),
        ({"nonfinite_logprobs": 3}, "yellow", "engine-and-learner-disagree"),
        ({"tool_failure_share": 0.8, "tool_calls_mean": 2.0}, "yellow", "tool-calls-fail"),
        ({"episode_end/max_turns": 0.2, "episode_end/episode_deadline": 0.2}, "yellow", "episodes-are-cut-off"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_has_its_advice(figures: dict[str, Any], level: str, topic: str) -> None:
    health = examine(rows(**figures))
    found = {finding.topic: finding.level.value for finding in health.findings}
    assert found.get(topic) == level, health
    assert health.level.value == max(found.values(), key=["green", "yellow", "red"].index), "as well as the worst"
    assert len(advice(topic)) > 40 and "`" not in advice(topic)
    assert health.plain()["findings"][0]["page"].startswith("docs/guides/debugging.md#")


def test_a_model_that_has_just_begun_may_still_learn_to_end() -> None:
    (finding,) = examine(rows(2, truncated_share=1.0)).findings
    assert finding.level is Level.YELLOW


def test_the_line_counts_the_other_findings() -> None:
    assert examine(rows(truncated_share=0.2)).line.endswith("by max_tokens")
    assert examine(rows(truncated_share=0.2, length_bias=-0.2)).line.endswith("(and 1 more finding)")
    everything = examine(rows(truncated_share=0.2, length_bias=-0.2, verdict_errors=4))
    assert everything.line.endswith("(and 2 more findings)")


def test_what_is_found_of_all_updates_is_not_said_of_the_last_once_more() -> None:
    equal = rows(reward_mean=0.0, reward_std=0.0, train_accuracy=0.0, grad_norm=0.0, warnings=("rewards are equal",))
    assert [finding.topic for finding in examine(equal).findings] == ["no-reward-differs"]


def test_held_out_accuracy_that_falls_under_a_rising_reward_is_a_hole_in_the_reward() -> None:
    (finding,) = examine(rows(), held_out(0.3, 0.6, 0.4)).findings
    assert finding.level is Level.RED and "the reward has a hole" in finding.text
    assert advice(finding.topic)
    assert not examine(rows(), held_out(0.3, 0.6, 0.56)).findings, "within its error"


def test_a_live_run_that_stands_still_or_lacks_workers() -> None:
    status: dict[str, Any] = {"stalled_s": 200, "stall_limit_s": 600, "fleets": FLEETS}
    (finding,) = examine(rows(), (), status).findings
    assert finding.level is Level.YELLOW and "at 600 s the run ends itself" in finding.text and advice(finding.topic)
    assert examine(rows(), (), status | {"stalled_s": 500}).level is Level.RED
    fewer = {"rollout": FLEETS["rollout"] | {"serving": 1, "coming": 1}}
    (finding,) = examine(rows(), (), {"fleets": fewer}).findings
    assert finding.text == "1 of 2 rollout workers serve, 1 on the way" and advice(finding.topic)
    none = FLEETS["rollout"] | {"serving": 0}
    assert examine(rows(), (), {"fleets": {"rollout": none | {"coming": 1}}}).level is Level.YELLOW, "as a run goes on"
    assert examine(rows(), (), {"fleets": {"rollout": none | {"coming": 0}}}).level is Level.RED
    assert not examine([], (), {"fleets": fewer}).findings, "a run that starts lacks nothing"


def test_where_nothing_is_ever_right_gold_answers_are_suspected_too() -> None:
    nothing: dict[str, Any] = {"reward_mean": 0.0, "reward_std": 0.0, "train_accuracy": 0.0, "uniform_group_share": 1.0}
    for accuracy, said in ((0.0, True), (1.0, False)):
        (finding,) = examine(rows(**nothing | {"train_accuracy": accuracy})).findings
        assert finding.topic == "no-reward-differs" and ("(none is right)" in finding.text) is said
    (finding,) = examine(rows(reward_mean=0.02, train_accuracy=0.02, uniform_group_share=0.9)).findings
    assert finding.text.endswith("too hard, or gold answers are wrong")
    for topic in ("no-reward-differs", "too-hard"):
        assert "three prompts with their gold answers" in advice(topic)


def test_few_or_broken_figures_are_no_fault() -> None:
    assert examine([]).line == "no update has been made yet"
    assert not examine([{"update": 1, "reward_mean": 0.0}]).findings
    many: list[dict[str, Any]] = rows(40)
    for broken in (None, math.nan, "?", [1], 10**400):
        many[20] = dict.fromkeys(many[20], broken) | {"update": 21, "warnings": ()}
        assert not examine(many, [*held_out(0.2, 0.5), {"update": 30, "accuracy": broken}]).findings
    assert not examine(rows(entropy=None, truncated_share=math.nan, reward_std=math.nan)).findings


def test_a_run_without_an_update_says_so() -> None:
    assert examine([], held_out(0.4)).line == "no update has been made yet; held-out accuracy 40%"
    finished = examine([], held_out(0.98), {"ended": "finished"})
    assert finished.level is Level.GREEN and finished.line == "no update was made; held-out accuracy 98%"


def test_a_run_that_was_ended_says_why() -> None:
    failed = examine(rows(), (), {"ended": "failed", "error": "the learner died\nits log: x"})
    assert failed.level is Level.RED and failed.line == "the run ended with an error: the learner died"
    killed = examine([], (), {"ended": "killed"})
    assert killed.level is Level.YELLOW and "it was killed" in killed.line
    assert all(advice(health.findings[0].topic) for health in (failed, killed))
    for ended in ("finished", "stopped", "live", "unknown"):
        assert examine(rows(), (), {"ended": ended}).level is Level.GREEN


def test_episodes_that_answer_by_themselves_are_well() -> None:
    figures: dict[str, Any] = {"episode_end/answered": 0.9, "episode_end/max_turns": 0.1, "tool_failure_share": 0.1}
    assert examine(rows(tool_calls_mean=2.0, **figures)).level is Level.GREEN
    assert examine(rows(tool_calls_mean=0.0, tool_failure_share=1.0)).level is Level.GREEN, "hardly a call"


def test_a_score_that_is_never_full_is_not_called_too_hard() -> None:
    assert not examine(rows(train_accuracy=0.0)).findings, "no component says what is right"
    begun: dict[str, Any] = {"train_accuracy": lambda done: 0.019 * done, "reward/accuracy": lambda done: 0.019 * done}
    assert not examine(rows(12, **begun)).findings, "a few updates say nothing"
    assert not examine(rows(**begun)).findings, "it comes"


UNMOVED: dict[str, Any] = {
    "reward_mean": lambda done: 0.3 + 0.01 * (round(40 * done) % 3),
    "train_accuracy": 0.3,
    "entropy": lambda done: 0.9 + 0.01 * (round(40 * done) % 3),
    "truncated_share": 0.23,
    "grad_norm": 0.8,
    "learning_rate": 1e-9,
}


def asked(*found: dict[str, float]) -> list[dict[str, float]]:
    """Evaluations with all that a file has of them, but for `found`."""
    whole = {"accuracy": 0.25, "reward_mean": 0.31, "completion_tokens_mean": 42.578125, "truncated_share": 0.2}
    return [{"update": 20 * i, "standard_error": 0.02} | whole | figures for i, figures in enumerate(found)]


def test_a_policy_that_does_not_move_is_named_before_its_symptoms() -> None:
    health = examine(rows(**UNMOVED), asked({}, {}, {}))
    assert health.level is Level.YELLOW
    assert [finding.topic for finding in health.findings] == ["the-policy-does-not-move", "completions-are-cut-off"]
    assert "updates 0 to 40 are the same to the last digit (learning_rate 1e-09 at most)" in health.line
    assert "learning_rate" in advice("the-policy-does-not-move")
    overlapped = {"staleness_mean": lambda done: min(1.0, 40 * done), "kl_rollout": 3e-13}
    health = examine(rows(**UNMOVED | overlapped))
    assert health.findings[0].topic == "the-policy-does-not-move" and "kl_rollout" in health.line


@pytest.mark.parametrize(
    ("changed", "evaluations"),
    [
        ({}, asked({}, {"completion_tokens_mean": 42.59375})),  # other completions
        ({}, asked({}, {}, {"reward_mean": 0.33})),
        ({}, asked({"accuracy": 1.0}, {"accuracy": 1.0})),  # it could do it before
        ({}, asked({"completion_tokens_mean": 1.0}, {"completion_tokens_mean": 1.0})),  # one letter each
        ({}, asked({"truncated_share": 1.0}, {"truncated_share": 1.0})),
        ({}, asked({}, {"update": 3})),  # too near
        ({"grad_norm": 0.0}, asked({}, {})),  # nothing to move for
        ({"learning_rate": lambda done: 1e-9 + 1e-6 * done}, asked({}, {})),  # it warms up
        ({"entropy": lambda done: 0.9 - 0.5 * done}, asked({}, {})),
        ({"reward_mean": lambda done: 0.2 + 0.6 * done}, asked({}, {})),
        ({"staleness_mean": 0.0, "kl_rollout": 3e-13}, []),  # nought in every synchronous run
        ({"staleness_mean": 1.0, "kl_rollout": lambda done: 2e-7 * (1 - done)}, []),  # the rate decays to 0
        ({"staleness_mean": 1.0, "kl_rollout": 0.004}, []),
    ],
)  # fmt: skip
def test_a_policy_that_moves_is_not_called_still(changed: dict[str, Any], evaluations: list[dict[str, float]]) -> None:
    learns = {"truncated_share": 0.01, **changed}
    assert not examine(rows(**UNMOVED | learns), evaluations).findings


def test_a_run_that_learns_is_not_called_still() -> None:
    moves: dict[str, Any] = {"grad_norm": 0.8, "learning_rate": 1e-5, "staleness_mean": 1.0, "kl_rollout": 1e-4}
    assert not examine(rows(**moves), asked({}, {"accuracy": 0.5}, {"accuracy": 0.8})).findings
    few: list[dict[str, Any]] = rows(4, **UNMOVED | {"staleness_mean": 1.0, "kl_rollout": 0.0, "truncated_share": 0.0})
    assert not examine(few, asked({})).findings
