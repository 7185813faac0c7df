"""What a level cost, by hand: curves made up, run directories and TRL's rows read, ratios that are only bounds."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.trl import process
from benchmarks.trl.reward_curve import Curve, Point, SpeedRatio, compare, median_ratio, read_run, reward_gap
from benchmarks.trl.reward_plot import mean_line
from benchmarks.trl.reward_report import SeedRun, summarise, table_rows
from benchmarks.trl.time_to_reward import Options, check_comparable, check_same, run, stop_level
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RayzeroError, RecipeError
from rayzero.services.store.json_lines import append_lines
from tests.fakes import make_recipe


def curve(*points: tuple[float, float], ended: str = "updates") -> Curve:
    """(seconds, accuracy) at updates 0, 1, …, ten samples each."""
    made = (
        Point(update=number, seconds=seconds, samples=10 * number, accuracy=accuracy)
        for number, (seconds, accuracy) in enumerate(points)
    )
    return Curve(points=tuple(made), outside_s=5.0, ended=ended)


def about(value: float) -> Any:
    """Stands where a dataclass wants a number."""
    return pytest.approx(value)


def comparable(**changes: Any) -> Recipe:
    content = make_recipe().model_dump(mode="json") | {"rollout": {"device": "cpu"}}
    content["learner"]["steps_without_gradient"] = True
    return Recipe.model_validate(content | changes)


def write_run(path: Path, *, seed: int = 0, offset_s: float = 0.0, seconds: float = 400.0, **changes: Any) -> Path:
    """A finished run: four updates of 30 s, the untrained model and updates 2 and 4 evaluated in 10 s each."""
    recipe = comparable(seed=seed, **changes)
    path.mkdir()
    (path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    (path / "summary.json").write_text(json.dumps({"seconds": seconds}))
    ends = {1: 1030.0, 2: 1060.0, 3: 1100.0, 4: 1130.0 + offset_s}
    rows = [
        {"update": u, "samples": 4.0, "dropped_groups": u // 3, "reward_mean": u / 10, "time_s": end}
        for u, end in ends.items()
    ]
    append_lines(path / "metrics.jsonl", rows)
    evaluations = {0: (1000.0, 0.2), 2: (1070.0, 0.5), 4: (1140.0 + offset_s, 0.7)}
    append_lines(
        path / "evaluations.jsonl",
        [{"update": u, "time_s": end, "accuracy": accuracy} for u, (end, accuracy) in evaluations.items()],
    )
    return path


def test_a_level_is_reached_on_the_line_between_two_evaluations() -> None:
    reached = curve((0, 0.2), (100, 0.4), (200, 0.8)).reach(0.5)
    assert reached is not None
    assert (reached.seconds, reached.samples) == pytest.approx((125.0, 12.5))


def test_a_level_that_is_lost_again_does_not_count() -> None:
    falling = curve((0, 0.2), (100, 0.6), (200, 0.4), (300, 0.8))
    assert falling.held() == [0.2, 0.4, 0.4, 0.8]
    reached = falling.reach(0.5)
    assert reached is not None and reached.seconds == pytest.approx(225.0)
    assert falling.reach(0.9) is None
    first = falling.reach(0.1)
    assert first is not None and first.seconds == 0


def test_a_side_that_was_stopped_gives_a_bound() -> None:
    ours = curve((0, 0.2), (50, 0.6))
    reached = compare(ours, curve((0, 0.2), (400, 0.6)), 0.4)
    assert reached is not None and reached.seconds == SpeedRatio(value=about(8.0), is_bound=False)
    stopped = compare(ours, curve((0, 0.2), (100, 0.3), (300, 0.35), ended="time"), 0.4)
    assert stopped is not None and stopped.theirs is None
    assert str(stopped.seconds) == "> 12.0×" and stopped.samples == SpeedRatio(value=about(4.0), is_bound=True)


def test_nothing_is_compared_where_one_side_began_there_or_we_never_came() -> None:
    ours = curve((0, 0.2), (50, 0.6))
    assert compare(ours, curve((0, 0.5), (400, 0.6)), 0.4) is None
    assert compare(ours, curve((0, 0.2), (400, 0.9)), 0.7) is None


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        (((2.0, False), (3.0, False), (9.0, True)), "3.0×"),
        (((2.0, True), (3.0, False), (9.0, False)), "> 3.0×"),
        (((2.0, False), (3.0, True), (9.0, False)), "> 3.0×"),
        (((2.0, False), (4.0, True)), "3.0×"),
    ],
)
def test_a_median_is_a_bound_where_a_bound_could_lie_above_it(
    ratios: tuple[tuple[float, bool], ...], expected: str
) -> None:
    assert str(median_ratio([SpeedRatio(value=value, is_bound=bound) for value, bound in ratios])) == expected


def test_a_strict_run_is_read_without_its_evaluations(tmp_path: Path) -> None:
    recipe, read = read_run(write_run(tmp_path / "run"))
    assert recipe.training.group_size == 2
    assert [point.seconds for point in read.points] == [0.0, 60.0, 120.0]
    # Two dropped samples by update 4: they were generated, too.
    assert [point.samples for point in read.points] == [0, 8, 18]
    assert read.outside_s == pytest.approx(400.0 - 120.0)


def test_an_overlapping_run_keeps_the_time_of_its_evaluations(tmp_path: Path) -> None:
    training = make_recipe(max_staleness=1).training.model_dump(mode="json")
    _, read = read_run(write_run(tmp_path / "run", training=training))
    assert [point.seconds for point in read.points] == [0.0, 60.0, 130.0]


def test_runs_without_a_whole_clock_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no run directory"):
        read_run(tmp_path / "none")
    with pytest.raises(RecipeError, match="resumed"):
        read_run(write_run(tmp_path / "resumed", offset_s=900.0))
    unfinished = write_run(tmp_path / "unfinished")
    (unfinished / "summary.json").unlink()
    with pytest.raises(RecipeError, match="not finished"):
        read_run(unfinished)


def test_recipes_that_trl_would_do_otherwise_are_refused() -> None:
    check_comparable(comparable())
    with pytest.raises(RecipeError, match=r"learner\.kl\.beta"):
        check_comparable(comparable(learner={"kl": {"beta": 0.04}}))
    with pytest.raises(RecipeError, match=r"learner\.loss"):
        check_comparable(comparable(learner={"loss": {"name": "dapo"}}))
    with pytest.raises(RecipeError, match=r"add learner\.steps_without_gradient=true"):
        check_comparable(comparable(learner={"steps_without_gradient": False}))
    check_same(comparable(), comparable(seed=1), Path("other"))
    with pytest.raises(RecipeError, match="`learner`"):
        check_same(comparable(), comparable(learner={"loss": {"name": "grpo", "clip_low": 0.1}}), Path("other"))


def test_runs_are_compared_with_finished_trainings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def trained(spec: dict[str, Any], out: Path, say: object) -> list[dict[str, Any]]:
        asked.append(spec)
        return trl_rows((0.0, 0.2), (300.0, 0.4), (600.0, 0.69))

    monkeypatch.setattr("benchmarks.trl.time_to_reward.find_spec", lambda name: name)
    monkeypatch.setattr("benchmarks.trl.time_to_reward.train_with_trl", trained)
    monkeypatch.setattr("benchmarks.trl.time_to_reward.resolve_model", lambda path, say: Path("model"))
    runs = [write_run(tmp_path / f"run_{seed}", seed=seed) for seed in (3, 4)]
    plot = tmp_path / "images" / "plot.png"
    options = Options(runs=runs, levels=(0.5, 0.9), out=tmp_path / "out", plot=plot, as_json=True)
    figures = run(Path("unused.yaml"), [], options)
    assert [spec["recipe"]["seed"] for spec in asked] == [3, 4]
    # The micro-batch is measured once, and TRL is asked for no more than rayzero held: 0.7 less the margin.
    assert [(spec["micro_batch"], spec["stop_at"]) for spec in asked] == [
        (0, pytest.approx(0.68)),
        (8, pytest.approx(0.68)),
    ]
    half = figures["levels"]["0.5"]
    assert half["median_seconds"] == {"value": pytest.approx((300 + 300 * 0.1 / 0.29) / 60), "is_bound": False}
    assert figures["levels"]["0.9"]["median_seconds"] is None
    assert json.loads(capsys.readouterr().out)["levels"]["target"]["seeds"][0]["level"] == pytest.approx(0.68)
    assert json.loads((options.out / "time_to_reward.json").read_text())["seeds"][1]["trl"]["outside_s"] == 30.0
    assert "| 90 % |" in (options.out / "time_to_reward.md").read_text()
    assert plot.stat().st_size > 10_000
    assert [spec["as_installed"] for spec in asked] == [False, False]
    run(Path("unused.yaml"), [], replace(options, trl_as_installed=True, plot=None))
    assert [spec["as_installed"] for spec in asked[2:]] == [True, True]


def trl_rows(*evaluations: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        {"event": "spec", "spec": {"limit_s": 60.0, "micro_batch": 0, "out": "x"}},
        {"event": "settings", "micro_batch": 8, "probe_s": 20.0, "text": "TRL"},
        *(
            {"event": "evaluation", "update": number, "samples": 4 * number, "seconds": seconds, "accuracy": accuracy}
            for number, (seconds, accuracy) in enumerate(evaluations)
        ),
        {"event": "end", "ended": "reached"},
        {"event": "wall", "seconds": evaluations[-1][0] + 50.0},
    ]


def test_a_finished_training_is_not_paid_for_twice(tmp_path: Path) -> None:
    out = tmp_path / "trl.jsonl"
    rows = trl_rows((0.0, 0.2), (60.0, 0.6))
    append_lines(out, rows)
    told: list[str] = []
    assert process.train_with_trl({"limit_s": 60.0, "micro_batch": 4}, out, told.append) == rows
    assert told == [f"finished before: {out}"]
    assert process.trl_curve(rows).outside_s == pytest.approx(30.0)
    assert not process.finished_rows(out, {"limit_s": 90.0})
    append_lines(out, rows[:-1], replace=True)
    assert not process.finished_rows(out, {"limit_s": 60.0})


@pytest.mark.parametrize("as_installed", [False, True])
def test_trl_has_the_allocator_of_rayzeros_processes_unless_it_runs_as_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_installed: bool
) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr(process, "COMMAND", ("-c", "import os, sys; sys.exit(str(sorted(os.environ)))"))
    with pytest.raises(RayzeroError) as ended:
        process.train_with_trl({"as_installed": as_installed}, tmp_path / "trl.jsonl", lambda text: None)
    assert ("'LD_PRELOAD'" in str(ended.value)) is not as_installed


def test_a_training_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", ("-c", "import sys; sys.exit('error: no such thing')"))
    with pytest.raises(RayzeroError, match=r"exit code 1; all of it in .*trl\.log, its end:\nerror: no such thing"):
        process.train_with_trl({"limit_s": 60.0}, tmp_path / "trl.jsonl", lambda text: None)


def test_an_interrupted_training_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "trl.jsonl"
    script = (
        "import json, sys, time; spec = json.load(open(sys.argv[1])); row = {'event': 'settings', 'text': 'it runs'}"
    )
    script += "; print(json.dumps(row), file=open(spec['out'], 'w'), flush=True); time.sleep(60)"
    monkeypatch.setattr(process, "COMMAND", ("-c", script))

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        process.train_with_trl({"limit_s": 60.0}, out, interrupt)
    assert time.monotonic() - started < 50
    assert not process.finished_rows(out, {"limit_s": 60.0})


def test_training_rewards_are_compared_update_by_update() -> None:
    def rewarded(*rewards: float | None) -> Curve:
        return replace(curve((0, 0.2), (50, 0.6)), rewards=rewards)

    pairs = [(rewarded(0.1, 0.3, 0.5), rewarded(0.2, 0.3)), (rewarded(0.4, None), rewarded(0.2, 0.9))]
    gap = reward_gap(pairs)  # gaps of 0.1, 0.0 and -0.2
    assert gap is not None and gap.num_updates == 3
    assert gap.mean == pytest.approx(-0.1 / 3)
    assert gap.standard_error == pytest.approx((0.07 / 3) ** 0.5 / 3**0.5)
    assert reward_gap([(rewarded(0.1), rewarded(0.2))]) is None


def test_without_trl_our_half_is_told() -> None:
    ours = curve((0, 0.2), (50, 0.6))
    figures = summarise(comparable(), [SeedRun(seed=0, ours=ours, theirs=None)], (0.4,), "not installed")
    assert table_rows(figures)[1][:4] == ["40 %", "25", "–", "–"]
    assert stop_level(ours, (0.4, 0.59, 0.7)) == pytest.approx(0.59)


def test_a_bound_below_one_is_left_open() -> None:
    stopped = curve((0, 0.2), (20, 0.3), ended="time")
    figures = summarise(comparable(), [SeedRun(seed=0, ours=curve((0, 0.2), (50, 0.6)), theirs=stopped)], (0.4,), "TRL")
    assert figures["levels"]["0.4"]["seeds"][0]["ratio_seconds"] == {"value": pytest.approx(0.8), "is_bound": True}
    assert table_rows(figures)[1][2:5] == ["–", "open", "open"]


def test_the_mean_ends_where_the_first_seed_does() -> None:
    curves = [curve((0, 0.2), (10, 0.4), (20, 0.6)), curve((0, 0.0), (15, 0.6))]
    xs, ys = mean_line(curves, "seconds")
    assert xs.tolist() == [0.0, 10.0, 15.0]
    assert ys.tolist() == pytest.approx([0.1, 0.4, 0.55])
