"""Every alert has a case in which it fires and one in which it is quiet, and Prometheus itself runs both."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rayzero.services.observe.telemetry import VERSIONS
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import make_recipe
from tests.series import KNOWN
from tests.system import needs

ALERTS = Path("deploy/prometheus/alerts.yml").resolve()
RUN = 'run="r"'
UP = {'up{run="r",component="controller"}': "1x1000"}
GOES_ON = {'rayzero_run_paused{run="r"}': "0x1000"}

Series = dict[str, str]


def series(name: str, values: str, labels: str = "") -> Series:
    """One synthetic series a minute, in promtool's notation: `0+1x10` is 0, 1, … 10."""
    return {f"rayzero_{name}{{{', '.join(filter(None, (RUN, labels)))}}}": values}


def verdicts(errors: str, cause: str) -> Series:
    return {
        **series("verdicts_total", "0+100x600", 'status="correct"'),
        **series("verdict_errors_total", errors, f'cause="{cause}"'),
    }


def episodes(failed: str) -> Series:
    return {
        **series("episodes_total", "0+80x60", 'end="answered"'),
        **series("episodes_total", failed, 'end="environment_error"'),
    }


def serving(number: str, target: str = "2x600") -> Series:
    return {
        **series("workers", number, 'role="rollout",state="serving"'),
        **series("workers_target", target, 'role="rollout"'),
        **UP,
    }


def staleness(bound: int, all_at: int) -> Series:
    """Every group is trained on at one staleness: the histogram's buckets that hold it grow."""
    found: Series = series("max_staleness_versions", f"{bound}x100")
    for edge in (*VERSIONS, math.inf):
        values = "0+10x100" if edge >= all_at else "0x100"
        found |= series("staleness_versions_bucket", values, f'le="{"+Inf" if edge == math.inf else edge}"')
    return found | series("groups_past_bound_total", "0x100")


def driver(up: str, ended: str) -> Series:
    return {'up{run="r",component="controller"}': up, **series("run_ended", ended)}


def waiting(tokens: str, waited: str, stalled: str) -> Series:
    return {
        **series("worker_tokens_total", tokens, 'worker="w"'),
        **series("waiting_seconds", waited),
        **series("stalled_seconds", stalled),
        **series("stall_limit_seconds", "1800x100"),
        **series("update", "3x100"),
        **GOES_ON,
    }


def one_after_another(name: str, first: str, second: str, folder: Path) -> Series:
    """Two runs of one recipe in one place, the first removed before the second began."""
    found: Series = {}
    for values in (first, second):
        directory = RunDirectory(folder / "run")
        directory.prepare(make_recipe())
        found[f'rayzero_{name}{{run="{directory.label}"}}'] = values
        directory.release()
        shutil.rmtree(directory.path)
    return found


# alert: (fires, quiet, minute at which both are looked at)
CASES: dict[str, tuple[Series, Series, int]] = {
    "ControllerDown": (driver("1 1 0x10", "0 0 _x10"), driver("1x20", "0x20"), 5),
    "TrainingStalled": (
        {**series("stalled_seconds", "0+60x60"), **series("stall_limit_seconds", "1800x60")},
        {**series("stalled_seconds", "0+60x15 0x60"), **series("stall_limit_seconds", "1800x60")},
        20,
    ),
    "RolloutWorkersDown": (serving("2 2 0x20"), serving("2x20"), 10),
    "WorkersBelowTarget": (serving("1x20"), serving("2x20"), 10),
    "WorkerRestarts": (
        series("worker_restarts_total", "0+1x30", 'role="rollout"'),
        series("worker_restarts_total", "0 1 1x30", 'role="rollout"'),
        20,
    ),
    "NoTokens": (
        waiting("100x60", "0+60x60", "0+60x60"),
        waiting("0+100x60", "0+60x60", "0x60"),
        20,
    ),
    "LearnerStarved": (
        {
            **series("loop_seconds_total", "0+50x60", 'phase="wait"'),
            **series("loop_seconds_total", "0+10x60", 'phase="u"'),
        },
        {
            **series("loop_seconds_total", "0+10x60", 'phase="wait"'),
            **series("loop_seconds_total", "0+50x60", 'phase="u"'),
        },
        40,
    ),
    "StalenessAboveBound": (series("groups_past_bound_total", "0 0 1x100"), staleness(1, all_at=1), 20),
    "GroupsDropped": (
        {
            **series("groups_total", "0+9x60", 'outcome="dropped"'),
            **series("groups_total", "0+1x60", 'outcome="mixed"'),
        },
        {
            **series("groups_total", "0+1x60", 'outcome="dropped"'),
            **series("groups_total", "0+9x60", 'outcome="mixed"'),
        },
        30,
    ),
    "WeightSyncFailing": (series("sync_failures_total", "0 0 4x30"), series("sync_failures_total", "0 0 1x30"), 10),
    "WeightsLag": (
        series("worker_lag_versions", "3x30", 'worker="w"'),
        series("worker_lag_versions", "1x30", 'worker="w"'),
        10,
    ),
    "RewardTimeouts": (verdicts("0+10x60", "deadline"), verdicts("0+1x60", "deadline"), 20),
    "RewardErrors": (verdicts("0+5x60", "crash"), verdicts("0x60", "crash"), 20),
    "EntropyCollapse": (series("entropy_nats", "1x60 0.1x60"), series("entropy_nats", "1x60 0.5x60"), 100),
    "LengthBias": (series("length_bias_ratio", "-0.25x60"), series("length_bias_ratio", "-0.05x60"), 30),
    "KlSpike": (series("kl_rollout_nats", "0.001x60 0.02x10"), series("kl_rollout_nats", "0.001x70"), 64),
    "NonFinite": (series("nonfinite_figures_total", "0 0 1x10"), series("nonfinite_figures_total", "0x20"), 5),
    "NoSignal": (series("uniform_groups_ratio", "0.95x60"), series("uniform_groups_ratio", "0.5x60"), 30),
    "TruncationHigh": (series("truncated_ratio", "0.4x60"), series("truncated_ratio", "0.1x60"), 30),
    "LengthBlowUp": (
        series("completion_tokens_mean", "100x60 300x60"),
        series("completion_tokens_mean", "100x60 150x60"),
        100,
    ),
    "RewardDropped": (series("reward_mean", "0.8x120 0.3x120"), series("reward_mean", "0.8x240"), 200),
    "CheckpointOld": (
        {**series("last_checkpoint_timestamp_seconds", "60x600"), **GOES_ON},
        {**series("last_checkpoint_timestamp_seconds", "60+60x600"), **GOES_ON},
        200,
    ),
    "EnvironmentFails": (episodes(failed="0+20x60"), episodes(failed="0+1x60"), 20),
    "DiskNearlyFull": (
        {**series("disk_free_bytes", "4x30"), **series("disk_size_bytes", "100x30")},
        {**series("disk_free_bytes", "40x30"), **series("disk_size_bytes", "100x30")},
        10,
    ),
    "LoopLag": (series("loop_lag_seconds", "3x30"), series("loop_lag_seconds", "0.01x30"), 10),
    "Paused": (series("run_paused", "1x200"), series("run_paused", "0x200"), 100),
}


FALSE_ALARMS: dict[str, tuple[str, Callable[[Path], Series], int]] = {
    "a run that has ended": ("ControllerDown", lambda folder: driver("1 1 0x200", "0 1 _x200"), 90),
    "a run that has been down for days": ("ControllerDown", lambda folder: driver("1 0x4000", "1 _x4000"), 3000),
    "all groups at a bound of 5": ("StalenessAboveBound", lambda folder: staleness(5, all_at=5), 30),
    "all groups at a bound of 6": ("StalenessAboveBound", lambda folder: staleness(6, all_at=6), 30),
    "all groups at a bound of 9": ("StalenessAboveBound", lambda folder: staleness(9, all_at=9), 30),
    "an update of 40 minutes": ("NoTokens", lambda folder: waiting("100x60", "0x60", "0+60x60"), 30),
    "a start of 10 minutes": ("NoTokens", lambda folder: waiting("0x60", "0x60", "0+60x60"), 10),
    "a worse run before": (
        "EntropyCollapse",
        lambda folder: one_after_another("entropy_nats", "1x60 _x60", "_x60 0.1x60", folder),
        100,
    ),
    "a shorter run before": (
        "LengthBlowUp",
        lambda folder: one_after_another("completion_tokens_mean", "100x60 _x60", "_x60 300x60", folder),
        100,
    ),
    "a better run before": (
        "RewardDropped",
        lambda folder: one_after_another("reward_mean", "0.8x120 _x120", "_x120 0.3x120", folder),
        200,
    ),
}
"""What once fired them, though all was well: (alert, series, minute)."""


def rules() -> list[dict[str, Any]]:
    content = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def test_every_alert_has_its_cases_and_says_what_to_do() -> None:
    assert [rule["alert"] for rule in rules()] == list(CASES)
    for rule in rules():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert len(rule["annotations"]["runbook"]) > 15 and "{{ $labels" in rule["annotations"]["summary"]


def test_alerts_name_only_metrics_that_there_are() -> None:
    for rule in rules():
        words = {word for word in rule["expr"].replace("{", " ").replace("(", " ").split() if "rayzero_" in word}
        for word in words:
            name = word.strip(",)[]").split("[")[0].rstrip(")")
            assert name in KNOWN, f"{rule['alert']} names {name}"


def case(alert: str, given: Series, minute: int, fires: bool) -> dict[str, Any]:
    """One test, as promtool takes it."""
    expected = [{"labels": "{}", "value": 1}] if fires else []
    question = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [{"expr": question, "eval_time": f"{minute}m", "exp_samples": expected}],
    }


def run_promtool(folder: Path, tests: list[dict[str, Any]]) -> None:
    file = folder / "cases.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs("promtool")
def test_each_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    tests = [case(alert, fires, minute, True) for alert, (fires, _, minute) in CASES.items()]
    tests += [case(alert, quiet, minute, False) for alert, (_, quiet, minute) in CASES.items()]
    run_promtool(tmp_path, tests)


@needs("promtool")
@pytest.mark.parametrize("name", FALSE_ALARMS)
def test_what_is_well_raises_no_alarm(tmp_path: Path, name: str) -> None:
    alert, given, minute = FALSE_ALARMS[name]
    run_promtool(tmp_path, [case(alert, given(tmp_path), minute, False)])


@needs("promtool")
@pytest.mark.parametrize("name", ["prometheus.yml", "local.yml"])
def test_the_configuration_is_valid(tmp_path: Path, name: str) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for token in ("api_token", "ray_token"):
        (secrets / token).write_text("t")
    text = (ALERTS.parent / name).read_text().replace("/run/secrets", str(secrets))
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text())
    (tmp_path / name).write_text(text)
    command = ["promtool", "check", "config", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
