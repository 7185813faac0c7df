"""Whether a run is well: green, yellow or red, each with its reason and the page that says what to do.

Read from what is recorded (metrics.jsonl, evaluations.jsonl) and, of a live run, from its status: the terminal, the
page, `rayzero status` and a finished run's file say the same of the same figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Any

from rayzero.services.observe.guide import GUIDE, advice
from rayzero.services.schema.plain import is_figure

Row = Mapping[str, Any]

EARLY_ENDS = ("max_turns", "max_tool_calls", "step_deadline", "episode_deadline", "parse_error")
"""Of episodes that did not come to their own end, tokens left aside: those are `truncated_share`."""
WINDOW = 8
"""Updates that a mean is taken over: single batches say little."""
NO_UPDATE = "no update has been made yet"
MOVED = 0.05
"""Rewards and shares nearer than this count as equal."""
RARE = 0.02
"""Hardly any."""
SOLVED = 0.8
"""Right answers from which on most prompts are solved: a policy that is sure of them has done what it should."""
HARD = "too hard, or gold answers are wrong"
NO_STEP = 1e-9
"""A learning rate below which no run moves: Adam changes a weight by the rate at most."""
SAMPLED = ("accuracy", "reward_mean", "completion_tokens_mean", "truncated_share")
"""Of an evaluation: equal to the last digit where, with the same seeds, every completion is the same."""
UNMOVED_KL = 1e-10
"""Nats, of samples at least a version old: far below what one step does that teaches anything, also in float32. In
bfloat16 rounding alone is above it, and only the evaluations can say it."""


class Level(StrEnum):
    """From well to broken; a run is as well as its worst finding."""

    GREEN = "green"
    YELLOW = "yellow"
    """Worth a look soon."""
    RED = "red"
    """It will not come right by itself."""


SEVERITY = {Level.GREEN: 0, Level.YELLOW: 1, Level.RED: 2}


@dataclass(frozen=True, slots=True)
class Symptom:
    """One thing that is wrong with a run, in a sentence."""

    level: Level
    text: str
    topic: str
    """A heading of the guide, as in a link."""
    detail: str = ""
    """What else the run says of it, in lines."""

    @property
    def page(self) -> str:
        """Where it stands what to do."""
        return f"{GUIDE}#{self.topic}"


@dataclass(frozen=True, slots=True)
class Health:
    """All findings, the worst first."""

    findings: tuple[Symptom, ...]
    summary: str
    """Of a run that is well: how it goes."""

    @property
    def level(self) -> Level:
        """The worst one's."""
        return self.findings[0].level if self.findings else Level.GREEN

    @property
    def line(self) -> str:
        """In one line: the worst finding, and how many others there are."""
        if not self.findings:
            return self.summary
        others = len(self.findings) - 1
        more = f" (and {others} more {'finding' if others == 1 else 'findings'})" if others else ""
        return self.findings[0].text + more

    def plain(self) -> dict[str, Any]:
        """As the API gives it."""
        found = [
            {"level": each.level.value, "text": each.text, "page": each.page, "advice": advice(each.topic)}
            | ({"detail": each.detail} if each.detail else {})
            for each in self.findings
        ]
        return {"level": self.level.value, "line": self.line, "findings": found}


def examine(rows: Sequence[Row], evaluations: Sequence[Row] = (), status: Mapping[str, Any] | None = None) -> Health:
    """The health of a run from its rows; `status` is a live run's, with `stalled_s`, `stall_limit_s` and `fleets`, or
    that of one on disk, with `ended` and `error`."""
    rows = [row for row in rows if is_figure(row.get("reward_mean"))]  # a batch without a verdict has none
    evaluations = [row for row in evaluations if is_figure(row.get("accuracy"))]
    found = list(_unmoved(rows, evaluations)) if rows else []  # a cause: before the symptoms of its level
    for rule in RULES if rows else ():
        found += rule(rows)
    found += _held_out(rows, evaluations)
    found.sort(key=lambda finding: -SEVERITY[finding.level])
    return with_status(Health(tuple(found), _summary(rows, evaluations)), status or {}, bool(rows))


def with_status(health: Health, status: Mapping[str, Any], has_updates: bool) -> Health:
    """What was found in a run's rows, and what its status says: cheap enough to be asked four times a second."""
    found = [*_ended(status), *_standing_still(status), *_workers(status, has_updates), *health.findings]
    found.sort(key=lambda finding: -SEVERITY[finding.level])
    ended = status.get("ended") in ("finished", "stopped", "failed", "killed")
    summary = health.summary.replace(NO_UPDATE, "no update was made", 1) if ended else health.summary
    return Health(tuple(found), summary)


def _mean(rows: Sequence[Row], name: str) -> float:
    values = [float(row[name]) for row in rows if is_figure(row.get(name))]
    return sum(values) / len(values) if values else math.nan


def _ended(status: Mapping[str, Any]) -> Iterator[Symptom]:
    if status.get("ended") == "failed":
        first, *others = str(status.get("error") or "it does not say which").strip().splitlines()
        text = f"the run ended with an error: {first}"
        topic = "it-stands-still" if first.startswith("stalled") else "the-run-ended-with-an-error"
        yield Symptom(Level.RED, text, topic, "\n".join(others))
    elif status.get("ended") == "killed":
        yield Symptom(Level.YELLOW, "the run is over and did not say why: it was killed", "the-run-was-killed")


def _standing_still(status: Mapping[str, Any]) -> Iterator[Symptom]:
    waited, limit = float(status.get("stalled_s") or 0.0), float(status.get("stall_limit_s") or math.inf)
    if waited > 0.25 * limit:
        level = Level.RED if waited > 0.6 * limit else Level.YELLOW
        text = f"nothing has moved for {waited:.0f} s; at {limit:.0f} s the run ends itself with a report"
        yield Symptom(level, text, "it-stands-still")


def _workers(status: Mapping[str, Any], is_running: bool) -> Iterator[Symptom]:
    for role, fleet in (status.get("fleets") or {}).items():
        missing = fleet["target"] - fleet["serving"]
        if is_running and missing > 0:
            # On the way is how every run begins and goes on; those that never arrive are a run that stands still.
            level = Level.RED if fleet["serving"] == 0 and not fleet["coming"] else Level.YELLOW
            coming = f", {fleet['coming']} on the way" if fleet["coming"] else ""
            text = f"{fleet['serving']} of {fleet['target']} {role} workers serve{coming}"
            yield Symptom(level, text, "workers-are-missing")


def _rewards(rows: Sequence[Row]) -> Iterator[Symptom]:
    recent = rows[-WINDOW:]
    if len(rows) < 3:
        return
    accuracy, uniform = _mean(recent, "train_accuracy"), _mean(recent, "uniform_group_share")
    if _mean(recent, "reward_std") < 1e-6:
        none = " (none is right)" if accuracy == 0 else ""
        text = f"every completion of the last {len(recent)} updates has the same reward: nothing can be learnt{none}"
        yield Symptom(Level.RED, text, "no-reward-differs")
    elif uniform > 0.8 and accuracy < 0.2:
        text = f"{uniform:.0%} of the groups have one reward throughout and {accuracy:.0%} are right: {HARD}"
        yield Symptom(Level.YELLOW, text, "too-hard")
    elif uniform > 0.8 and accuracy < SOLVED and not any(_entropy(rows)):
        text = f"{uniform:.0%} of the groups have one reward throughout, though {accuracy:.0%} are right"
        yield Symptom(Level.YELLOW, f"{text}: a prompt's completions are alike", "completions-of-a-prompt-are-alike")
    elif len(rows) >= 2 * WINDOW and _is_rare(rows):
        text = f"{accuracy:.1%} of the completions are right, as at the start: {HARD}"
        yield Symptom(Level.YELLOW, text, "too-hard")


def _is_rare(rows: Sequence[Row]) -> bool:
    """Whether hardly a completion is right, and there are no more of them, while another component's reward may differ.
    Without a component for accuracy there is no saying: a score that is never full is no fault."""
    early, recent = _mean(rows[:WINDOW], "train_accuracy"), _mean(rows[-WINDOW:], "train_accuracy")
    return recent < min(RARE, early + RARE / 4) and _mean(rows[-WINDOW:], "reward/accuracy") < RARE


def _unmoved(rows: Sequence[Row], evaluations: Sequence[Row]) -> Iterator[Symptom]:
    """Gradients, and a policy that stays what it was. At staleness 0 the KL says nothing: it is 0 in every run."""
    rates = [float(row["learning_rate"]) for row in rows if is_figure(row.get("learning_rate"))]
    if not _mean(rows, "grad_norm") > 0 or (rates and rates[-1] > rates[0]):
        return  # nothing to learn from has a finding of its own; a rate that is being warmed up is not there yet
    with_rate = f" (learning_rate {max(rates):.1g} at most)" if rates else ""
    if _are_the_same(evaluations) and _stands(rows):
        first, last = evaluations[0].get("update"), evaluations[-1].get("update")
        if is_figure(first) and is_figure(last) and last - first >= WINDOW:
            text = f"the evaluations of updates {first:.0f} to {last:.0f} are the same to the last digit"
            yield Symptom(Level.YELLOW, f"the policy does not move: {text}{with_rate}", "the-policy-does-not-move")
            return
    stale = [row for row in rows if is_figure(row.get("staleness_mean")) and row["staleness_mean"] >= 1]
    gaps = [float(row["kl_rollout"]) for row in stale if is_figure(row.get("kl_rollout"))]
    if len(gaps) >= 10 and max(map(abs, gaps)) < UNMOVED_KL:
        text = f"samples of older weights are within {UNMOVED_KL:g} nats of the newest (kl_rollout)"
        yield Symptom(Level.YELLOW, f"the policy does not move: {text}{with_rate}", "the-policy-does-not-move")
    elif rates and len(rows) >= 3 and max(rates) < NO_STEP:
        text = f"learning_rate is {max(rates):.1g} at most, which moves no weight"
        yield Symptom(Level.YELLOW, f"the policy does not move: {text}", "the-policy-does-not-move")


def _are_the_same(evaluations: Sequence[Row]) -> bool:
    """Whether all were given the same completions. Answers that are all right, all cut off or all of one length may be
    equal in every figure, and not be the same."""
    if len(evaluations) < 2 or not all(is_figure(row.get(name)) for row in evaluations for name in SAMPLED):
        return False
    of_first = [float(evaluations[0][name]) for name in SAMPLED]
    accuracy, _, tokens, truncated = of_first
    is_telling = 0 < accuracy < 1 and truncated < 1 and tokens != round(tokens)
    return is_telling and all([float(row[name]) for name in SAMPLED] == of_first for row in evaluations)


def _stands(rows: Sequence[Row]) -> bool:
    """Whether reward and entropy of the training are where they were."""
    early, recent = rows[:WINDOW], rows[-WINDOW:]
    entropies = _mean(early, "entropy"), _mean(recent, "entropy")
    rewards = _mean(early, "reward_mean"), _mean(recent, "reward_mean")
    return abs(rewards[1] - rewards[0]) < MOVED and abs(entropies[1] - entropies[0]) < 0.1 * entropies[0]


def _fall(rows: Sequence[Row]) -> Iterator[Symptom]:
    """A reward that was learnt and lost again."""
    if len(rows) < 2 * WINDOW:
        return
    sums = [0.0, *accumulate(float(row["reward_mean"]) for row in rows)]
    means = [(after - before) / WINDOW for before, after in zip(sums, sums[WINDOW:], strict=False)]
    best = max(range(len(means)), key=lambda at: means[at])
    gained, lost = means[best] - means[0], means[best] - means[-1]
    if lost > max(2 * MOVED, 0.3 * abs(means[best]), 0.5 * gained):
        at = rows[best + WINDOW - 1]["update"]
        text = f"the reward fell from {means[best]:.2f} (up to update {at}) to {means[-1]:.2f}"
        yield Symptom(Level.RED, text, "the-reward-fell")


def _entropy(rows: Sequence[Row]) -> Iterator[Symptom]:
    early, recent = _mean(rows[:WINDOW], "entropy"), _mean(rows[-WINDOW:], "entropy")
    accuracy = _mean(rows[-WINDOW:], "train_accuracy")
    if len(rows) > WINDOW and recent < 0.1 * early and recent < 0.1 and accuracy < 0.9:
        level = Level.YELLOW if accuracy > SOLVED else Level.RED
        text = f"entropy fell from {early:.2f} to {recent:.3f} nats with {accuracy:.0%} right: no exploration is left"
        yield Symptom(level, text, "entropy-collapse")


def _lengths(rows: Sequence[Row]) -> Iterator[Symptom]:
    recent = rows[-WINDOW:]
    if len(rows) > 2 * WINDOW:
        early = rows[:WINDOW]
        grown = _mean(recent, "completion_tokens_mean") / max(1.0, _mean(early, "completion_tokens_mean"))
        if grown > 2 and _mean(recent, "reward_mean") - _mean(early, "reward_mean") < MOVED:
            text = f"completions are {grown:.1f} times as long as at the start, for no more reward"
            yield Symptom(Level.YELLOW, text, "length-blow-up")
    cut = _mean(recent, "truncated_share")
    if cut > 0.1:
        level = Level.RED if cut > 0.5 and len(rows) >= 3 else Level.YELLOW  # a model that just begins may learn to end
        yield Symptom(level, f"{cut:.0%} of the completions are cut off by max_tokens", "completions-are-cut-off")
    bias = recent[-1].get("length_bias")
    if is_figure(bias) and bias < -0.1:
        text = f"completions that are trained on are {-bias:.0%} shorter than those begun: the late ones are dropped"
        yield Symptom(Level.YELLOW, text, "short-completions-are-preferred")


def _verdicts(rows: Sequence[Row]) -> Iterator[Symptom]:
    recent = rows[-WINDOW:]
    errors, judged = (
        sum(row[name] for row in recent if is_figure(row.get(name))) for name in ("verdict_errors", "samples")
    )
    share = errors / (errors + judged) if errors else 0.0
    if share > 0.02:
        level = Level.RED if share > 0.2 else Level.YELLOW
        yield Symptom(level, f"{share:.0%} of the completions got no verdict: rewards fail", "rewards-fail")


def _episodes(rows: Sequence[Row]) -> Iterator[Symptom]:
    """Of a run with environments."""
    recent = rows[-WINDOW:]
    failing = _mean(recent, "tool_failure_share")
    if failing > 0.5 and _mean(recent, "tool_calls_mean") > 0.1:
        yield Symptom(Level.YELLOW, f"{failing:.0%} of the tool calls fail", "tool-calls-fail")
    cut = sum(_share(recent, f"episode_end/{end}") for end in EARLY_ENDS)
    if cut > 0.25:
        text = f"{cut:.0%} of the episodes are ended by a limit of turns, calls or time, not by their answer"
        yield Symptom(Level.YELLOW, text, "episodes-are-cut-off")


def _share(rows: Sequence[Row], name: str) -> float:
    """A mean in which a row without the figure counts as 0."""
    return sum(float(row[name]) for row in rows if is_figure(row.get(name))) / len(rows)


def _mismatch(rows: Sequence[Row]) -> Iterator[Symptom]:
    warnings = rows[-1].get("warnings")
    learnt = rows[-1].get("grad_norm", 1.0)  # without a gradient the batch is what is warned of
    if not learnt and any(found.topic == "no-reward-differs" for found in _rewards(rows)):
        warnings = ()  # the same of all updates is found already
    for warning in warnings if isinstance(warnings, list | tuple) else ():
        yield Symptom(Level.YELLOW, str(warning), "engine-and-learner-disagree" if learnt else "no-reward-differs")
    if is_figure(rows[-1].get("nonfinite_logprobs")) and rows[-1]["nonfinite_logprobs"]:
        text = f"{rows[-1]['nonfinite_logprobs']:.0f} tokens have a log-probability that is not finite"
        yield Symptom(Level.YELLOW, text, "engine-and-learner-disagree")


def _held_out(rows: Sequence[Row], evaluations: Sequence[Row]) -> Iterator[Symptom]:
    if len(evaluations) < 2:
        return
    best, last = max(evaluations, key=lambda row: row["accuracy"]), evaluations[-1]
    error = float(last["standard_error"]) if is_figure(last.get("standard_error")) else 0.0
    if best["accuracy"] - last["accuracy"] > max(2 * MOVED, 3 * error):
        rising = len(rows) > WINDOW and _mean(rows[-WINDOW:], "reward_mean") >= _mean(rows[:WINDOW], "reward_mean")
        why = ", while the training reward did not: the reward has a hole" if rising else ""
        peak = f"{best['accuracy']:.0%}" + (f" (update {best['update']})" if "update" in best else "")
        text = f"held-out accuracy fell from {peak} to {last['accuracy']:.0%}{why}"
        yield Symptom(Level.RED, text, "held-out-accuracy-fell")


RULES: tuple[Callable[[Sequence[Row]], Iterator[Symptom]], ...] = (
    _rewards,
    _fall,
    _entropy,
    _lengths,
    _verdicts,
    _episodes,
    _mismatch,
)


def _summary(rows: Sequence[Row], evaluations: Sequence[Row]) -> str:
    held_out = f"; held-out accuracy {evaluations[-1]['accuracy']:.0%}" if evaluations else ""
    if not rows:
        return NO_UPDATE + held_out
    first, last = _mean(rows[:WINDOW], "reward_mean"), _mean(rows[-WINDOW:], "reward_mean")
    way = "rose" if last - first > MOVED else "fell" if first - last > MOVED else "stays"
    course = f"the reward stays at {last:.2f}"
    if way != "stays":
        course = f"the reward {way} from {first:.2f} to {last:.2f} (means of {WINDOW} updates)"
    solved = _mean(rows[-WINDOW:], "uniform_group_share") > 0.8 and _mean(rows[-WINDOW:], "train_accuracy") > SOLVED
    if solved:
        return f"{course}; most prompts are solved: harder ones would teach more"
    return course + held_out
