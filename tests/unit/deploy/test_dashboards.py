"""The committed dashboards are those that the description makes, and name only metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

from rayzero.services.observe.monitoring.dashboard_panels import DASHBOARDS
from rayzero.services.observe.monitoring.dashboards import (
    FIGURES_BEHIND,
    as_grafana,
    write_dashboards,
    write_kubernetes,
)
from rayzero.services.observe.telemetry import CATALOGUE, WORRIES
from tests.series import KNOWN

COMMITTED = Path("deploy/grafana/dashboards")
OTHERS = {"up", "process_resident_memory_bytes", "ray_node_gpus_utilization"}


def test_the_committed_dashboards_are_up_to_date(tmp_path: Path) -> None:
    for file in write_dashboards(tmp_path):
        committed = (COMMITTED / file.name).read_text(encoding="utf-8")
        assert committed == file.read_text(encoding="utf-8"), "run: rayzero dashboards"
    assert len(list(COMMITTED.glob("*.json"))) == len(DASHBOARDS)


def test_kubernetes_gets_the_same(tmp_path: Path) -> None:
    for file in write_kubernetes(Path("deploy/prometheus/alerts.yml"), tmp_path):
        committed = (Path("deploy/kuberay/monitoring") / file.name).read_text(encoding="utf-8")
        assert committed == file.read_text(encoding="utf-8"), "run: rayzero dashboards"


def test_panels_name_only_metrics_that_there_are() -> None:
    known = KNOWN | OTHERS
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for expression, _ in panel.targets:
                bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]', "", expression)
                names = set(re.findall(r"\b(?:rayzero_|process_|ray_)\w+|\bup\b", bare))
                assert names and names <= known, f"{dashboard.title} / {panel.title}: {names - known}"


def test_every_metric_but_a_few_is_on_a_dashboard() -> None:
    """A figure that no panel shows is not worth exporting; alerts look at the rest."""
    shown = json.dumps([as_grafana(dashboard) for dashboard in DASHBOARDS])
    shown += Path("deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    unseen = {metric.family for metric in CATALOGUE if metric.family not in shown}
    assert unseen <= {
        "rayzero_evaluation_reward_mean",
        "rayzero_groups_room",
        "rayzero_start_timestamp_seconds",
        "rayzero_tokens_trained_total",
        "rayzero_update_warnings_total",
    }


def test_panels_say_when_to_worry_and_curves_are_annotated() -> None:
    panels = {panel["title"]: panel for dashboard in DASHBOARDS for panel in as_grafana(dashboard)["panels"]}
    told = [title for title, panel in panels.items() if panel["description"]]
    assert len(told) >= 20, told
    assert "the policy has collapsed" in next(p["description"] for t, p in panels.items() if "ntropy" in t)
    for dashboard in DASHBOARDS:
        marks = {each["name"]: each["target"]["expr"] for each in as_grafana(dashboard)["annotations"]["list"]}
        assert list(marks) == ["workers replaced", "evaluations", "checkpoints", "weight syncs"]
        assert all(re.search(r"rayzero_\w+", query)[0] in KNOWN for query in marks.values())  # type: ignore[index]


def test_a_panel_says_what_the_reference_says_of_its_metrics() -> None:
    families = {metric.name: metric.family for metric in CATALOGUE}
    panels = [panel for board in DASHBOARDS for panel in as_grafana(board)["panels"]]
    said = "\n".join(panel["description"] for panel in panels)
    drawn = json.dumps([panel["targets"] for panel in panels])
    worries = WORRIES | {name: figure.worry for name, figure in FIGURES_BEHIND.items()}
    assert families.keys() >= worries.keys()
    missing = [name for name, worry in worries.items() if families[name] in drawn and worry not in said]
    assert missing == [] and sum(families[name] in drawn for name in worries) >= 25


def test_panels_do_not_overlap_and_fit_the_grid() -> None:
    for dashboard in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in as_grafana(dashboard)["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not taken & cells and max(x for x, _ in cells) < 24, panel["title"]
            taken |= cells
