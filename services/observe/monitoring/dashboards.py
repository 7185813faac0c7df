"""`rayzero dashboards`: the Grafana dashboards, made from this description and committed.

What is on them stands in services/observe/monitoring/dashboard_panels.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rayzero.services.observe.figures import EVALUATION_FIGURES, UPDATE_FIGURES
from rayzero.services.observe.monitoring.dashboard_panels import DASHBOARDS
from rayzero.services.observe.monitoring.panels import SELECTED, Dashboard, Panel
from rayzero.services.observe.telemetry import ROW_GAUGES, WORRIES

_UPDATES = {figure.name: figure for figure in UPDATE_FIGURES}
FIGURES_BEHIND = {gauge: _UPDATES[name] for name, gauge in ROW_GAUGES.items()} | {
    "evaluation_accuracy_ratio": next(figure for figure in EVALUATION_FIGURES if figure.name == "accuracy"),
    "staleness_versions": _UPDATES["staleness_mean"],
    "groups_dropped": _UPDATES["dropped_groups"],
    "batches_held": _UPDATES["held_batches"],
    "sync_seconds": _UPDATES["sync_s"],
    "update_warnings": _UPDATES["warnings"],
}
"""The recorded figure behind a metric, by the metric's name in the catalogue."""
SUFFIX = "(_total|_bucket|_sum|_count)?"
"""What Prometheus appends to a metric's name."""
SCHEMA_VERSION = 39
GRID_WIDTH = 24
RAY = ("Ray", "rayDefaultDashboard")
"""The dashboard that a Ray head writes for its nodes, GPUs and object stores."""
VLLM_TAG = "vllm"
"""What vLLM's own dashboards carry; they find our engines by `instance`."""


def write_dashboards(folder: Path) -> list[Path]:
    """Write every dashboard as `<uid>.json`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for dashboard in DASHBOARDS:
        file = folder / f"{dashboard.uid}.json"
        file.write_text(json.dumps(as_grafana(dashboard), indent=1) + "\n", encoding="utf-8")
        files.append(file)
    return files


def as_grafana(dashboard: Dashboard) -> dict[str, Any]:
    """Grafana's JSON model, for Grafana 10.4 and later."""
    return {
        "uid": dashboard.uid,
        "title": f"rayzero: {dashboard.title}",
        "tags": ["rayzero"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "links": _links(dashboard),
        "annotations": {"list": list(_annotations())},
        "templating": {"list": [_data_source(), _run_variable()]},
        "panels": list(_placed(dashboard.panels)),
    }


def _placed(panels: tuple[Panel, ...]) -> Iterator[dict[str, Any]]:
    """Left to right, row by row."""
    x = y = row = 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > GRID_WIDTH:
            x, y, row = 0, y + row, 0
        yield _panel(number, panel) | {"gridPos": {"h": panel.height, "w": panel.width, "x": x, "y": y}}
        x, row = x + panel.width, max(row, panel.height)


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    custom: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"lineWidth": 1, "fillOpacity": 25 if panel.stack else 0, "showPoints": "never"}
        custom["stacking"] = {"mode": "normal" if panel.stack else "none", "group": "A"}
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": len(panel.targets) > 1 or panel.stack}
        options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    elif panel.kind == "stat":
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "none",
            "graphMode": "area",
            "textMode": "auto",
        }
    elif panel.kind == "heatmap":
        options = {"calculate": False, "yAxis": {"unit": panel.unit}, "color": {"scheme": "Blues", "mode": "scheme"}}
    targets = [
        {
            "refId": chr(ord("A") + index),
            "expr": expression,
            "legendFormat": legend,
            "datasource": source,
            **({"format": "heatmap"} if panel.kind == "heatmap" else {}),
        }
        for index, (expression, legend) in enumerate(panel.targets)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": _description(panel),
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": options,
        "targets": targets,
    }


def _links(dashboard: Dashboard) -> list[dict[str, Any]]:
    """To the others of ours, and to Ray's and vLLM's where those are imported."""
    pages = [(other.title, other.uid) for other in DASHBOARDS if other is not dashboard]
    links = [_link(title, type="link", url=f"/d/{uid}") for title, uid in (*pages, RAY)]
    return [*links, _link("vLLM", type="dashboards", tags=[VLLM_TAG], asDropdown=True)]


def _link(title: str, **rest: Any) -> dict[str, Any]:
    always = {"title": title, "icon": "dashboard", "tooltip": "", "keepTime": True, "includeVars": True}
    return always | {"tags": [], "asDropdown": False, "targetBlank": False} | rest


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _run_variable() -> dict[str, Any]:
    query = "label_values(rayzero_run_info, run)"
    return {
        "name": "run",
        "type": "query",
        "label": "run",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": "run"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "sort": 2,
    }


def _annotations() -> Iterator[dict[str, Any]]:
    """What a curve may bend at. Weight syncs come with every update, so they are there and not shown."""
    restarted, role = f"changes(rayzero_worker_restarts_total{SELECTED}[1m]) > 0", "{{role}} worker of {{run}} replaced"
    yield _annotation("workers replaced", restarted, "orange", role)
    for name, metric, color in (
        ("evaluations", "last_evaluation_timestamp_seconds", "green"),
        ("checkpoints", "last_checkpoint_timestamp_seconds", "blue"),
    ):
        done = f"changes(rayzero_{metric}{SELECTED}[1m]) > 0"
        yield _annotation(name, done, color, f"{name.removesuffix('s')} of {{{{run}}}}")
    synced = f"increase(rayzero_sync_seconds_count{SELECTED}[1m]) > 0"
    yield _annotation("weight syncs", synced, "purple", "weights of {{run}} sent", enable=False)


def _annotation(name: str, expression: str, color: str, title: str, enable: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "enable": enable,
        "iconColor": color,
        "target": {"refId": name.replace(" ", "-"), "expr": expression},
        "titleFormat": title,
    }


def _description(panel: Panel) -> str:
    """Its own words, and when to worry about the figures that it shows, from the catalogue of figures."""
    queries = " ".join(query for query, _ in panel.targets)
    names = [name for name in (*FIGURES_BEHIND, *WORRIES) if re.search(rf"rayzero_{name}{SUFFIX}\{{", queries)]
    shown = [FIGURES_BEHIND[name] for name in names if name in FIGURES_BEHIND]
    told = [f"{figure.meaning} {figure.worry}".strip() for figure in shown if figure.worry or not panel.help]
    told += [WORRIES[name] for name in names if name in WORRIES]
    return "\n".join(filter(None, (panel.help, *told)))


def write_kubernetes(alerts: Path, folder: Path) -> list[Path]:
    """The same dashboards and alerts as Kubernetes takes them: a ConfigMap each, and a PrometheusRule."""
    rules = yaml.safe_load(alerts.read_text(encoding="utf-8"))
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "rayzero"},
        "spec": rules,
    }
    maps = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": dashboard.uid, "labels": {"grafana_dashboard": "1"}},
            "data": {f"{dashboard.uid}.json": json.dumps(as_grafana(dashboard), indent=1) + "\n"},
        }
        for dashboard in DASHBOARDS
    ]
    files = []
    for name, documents in (("rule.yaml", [rule]), ("dashboards.yaml", maps)):
        file = folder / name
        text = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=10_000)
        file.write_text("# Made by `rayzero dashboards`.\n" + text, encoding="utf-8")
        files.append(file)
    return files
