"""The metrics: all of the catalogue, only the catalogue, with the right figures, and fit for Prometheus."""

from __future__ import annotations

import subprocess
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from rayzero.services.schema.causes import DropReason
from tests.fakes import make_group, make_prompt
from tests.series import KNOWN
from tests.system import needs
from tests.unit.services.observe.api.kit import Watched


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(tmp_path: Path) -> str:
    watched = Watched(tmp_path, max_staleness=1)
    await watched.go()
    return watched.view.meters.exposition(watched.run.controller).decode()


async def test_a_run_fills_its_meters(tmp_path: Path) -> None:
    found = values(await scraped(tmp_path))

    def value(name: str, **labels: str) -> float:
        return found[f"rayzero_{name}", tuple(sorted(labels.items()))]

    assert value("update") == value("updates_total") == 3
    assert value("groups_total", outcome="mixed") == 6
    assert value("tokens_trained_total") == 36
    assert value("worker_tokens_total", worker="rollout-0") == 36
    assert value("verdicts_total", source="default", status="correct") == 6
    assert value("workers", role="rollout", state="serving") == value("workers_target", role="rollout") == 1
    assert value("worker_version", worker="rollout-0") == 3
    assert value("worker_lag_versions", worker="rollout-0") == 0
    assert value("staleness_versions_count") == 6
    assert value("reward_component_mean", reward="accuracy") == value("reward_mean") == 0.5
    assert value("evaluation_accuracy_ratio") == 0.0  # its one completion a prompt is the wrong one
    assert value("rollout_reward_count", source="default") == 12
    assert value("run_info", version="0", model="fake", loss="grpo") == 1


async def test_drops_and_errors_are_counted_under_their_fixed_words(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.start()
    buffer, meters = watched.run.controller.buffer, watched.view.meters
    buffer.drop(buffer.admit(make_prompt(0)), DropReason.FAILED, "rollout-0 died: gone")
    meters.on_drop(make_group(1, rewards=(1.0, float("nan"))), DropReason.VERDICT_ERRORS)
    found = values(meters.exposition(watched.run.controller).decode())
    assert found["rayzero_groups_dropped_total", (("reason", "failed"),)] == 1
    assert found["rayzero_groups_total", (("outcome", "dropped"),)] == 1, "also one that was never finished"
    assert found["rayzero_tokens_dropped_total", (("reason", "verdict errors"),)] == 6
    assert found["rayzero_verdict_errors_total", (("cause", "exception"),)] == 1


async def test_every_series_is_in_the_catalogue(tmp_path: Path) -> None:
    found = {name for name, _ in values(await scraped(tmp_path)) if name.startswith("rayzero_")}
    assert found <= KNOWN
    assert len(KNOWN) > 60


async def test_a_worker_that_left_leaves_no_figures(tmp_path: Path) -> None:
    watched = Watched(tmp_path, num_workers=2)
    await watched.start()
    controller = watched.run.controller
    assert 'worker="rollout-1"' in watched.view.meters.exposition(controller).decode()
    watched.run.engines.slots.pop()
    assert 'worker="rollout-1"' not in watched.view.meters.exposition(controller).decode()


@needs("promtool")
async def test_prometheus_finds_nothing_to_say_of_them(tmp_path: Path) -> None:
    text = await scraped(tmp_path)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
