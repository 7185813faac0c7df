"""Draws a dashboard's panels from a live Prometheus: no Grafana, the same PromQL and the same places on the grid."""

from __future__ import annotations

import html
import time
from typing import Any

from rayzero.services.observe.monitoring.dashboards import as_grafana
from rayzero.services.observe.monitoring.panels import Dashboard
from tests.prometheus import Prometheus

CELL_WIDTH, CELL_HEIGHT = 56, 34
COLORS = ("#1f6feb", "#1a7f37", "#c93c37", "#9a6700", "#8250df", "#0a7c86", "#b0468e", "#5a6069")
MINUTES = 5
STYLE = (
    "body{margin:0;background:#f4f5f5;font:12px system-ui,sans-serif;color:#24292e}"
    "h1{font-size:16px;margin:10px 14px}main{position:relative}"
    "section{position:absolute;background:#fff;border:1px solid #dcdee0;border-radius:3px;padding:6px 8px;"
    "overflow:hidden;box-sizing:border-box}h2{font-size:12px;margin:0 0 2px;font-weight:600}"
    ".figure{font-size:26px;margin-top:6px}"
    "p{margin:0;color:#5a6069;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}"
    "svg{display:block;overflow:visible}svg text{font-size:9px;fill:#5a6069}polyline{fill:none;stroke-width:1.4}"
)


def preview(dashboard: Dashboard, server: Prometheus, run: str) -> str:
    """One HTML page."""
    model = as_grafana(dashboard)
    panels = [_panel(panel, server, run) for panel in model["panels"]]
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in model["panels"]) * CELL_HEIGHT
    title = html.escape(f"{model['title']}   run: {run}")
    return (
        f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'><title>{title}</title><style>{STYLE}</style>"
        f"<h1>{title}</h1><main style='height:{height}px'>{''.join(panels)}</main>"
    )


def _panel(panel: dict[str, Any], server: Prometheus, run: str) -> str:
    place = panel["gridPos"]
    width, height = place["w"] * CELL_WIDTH - 6, place["h"] * CELL_HEIGHT - 6
    lines = [line for target in panel["targets"] for line in _lines(target, server, run)]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    stacked = panel["fieldConfig"]["defaults"]["custom"].get("stacking", {}).get("mode") == "normal"
    if not lines:
        body = "<p>no data</p>"
    elif panel["type"] == "stat":
        body = f"<div class=figure>{_figure(lines[0][1][-1][1], unit)}</div>"
    else:
        body = _chart(_stack(lines) if stacked else lines, unit, width - 18, height - 62) + _legend(lines)
    style = f"left:{place['x'] * CELL_WIDTH + 8}px;top:{place['y'] * CELL_HEIGHT}px;width:{width}px;height:{height}px"
    return f"<section style='{style}'><h2>{html.escape(panel['title'])}</h2>{body}</section>"


def _lines(target: dict[str, Any], server: Prometheus, run: str) -> list[tuple[str, list[tuple[float, float]]]]:
    expression = target["expr"].replace("$__rate_interval", "1m").replace("$run", run)
    now = time.time()
    found = server.ask("query_range", query=expression, start=str(now - 60 * MINUTES), end=str(now), step="2")["result"]
    lines = []
    for series in found:
        name = target["legendFormat"]
        for label, value in series["metric"].items():
            name = name.replace("{{" + label + "}}", value)
        points = [(float(at), float(value)) for at, value in series["values"] if value not in ("NaN", "+Inf", "-Inf")]
        if points:
            lines.append((name.removeprefix(f"{run} "), points))
    return lines


def _stack(lines: list[tuple[str, list[tuple[float, float]]]]) -> list[tuple[str, list[tuple[float, float]]]]:
    sums: dict[float, float] = {}
    stacked = []
    for name, points in lines:
        for at, value in points:
            sums[at] = sums.get(at, 0.0) + value
        stacked.append((name, [(at, sums[at]) for at, _ in points]))
    return stacked


def _chart(lines: list[tuple[str, list[tuple[float, float]]]], unit: str, width: int, height: int) -> str:
    points = [point for _, line in lines for point in line]
    first, last = min(at for at, _ in points), max(at for at, _ in points)
    low, high = min(0.0, *(value for _, value in points)), max(value for _, value in points)
    high = high if high > low else low + 1.0
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = 6 + (1 - share) * height
        parts.append(f"<line x1=44 x2={width} y1={y} y2={y} stroke='#e3e5e8'/>")
        parts.append(f"<text x=0 y={y + 3}>{_figure(low + share * (high - low), unit)}</text>")
    for number, (_, line) in enumerate(lines):
        places = " ".join(
            f"{44 + (at - first) / ((last - first) or 1) * (width - 44):.1f},"
            f"{6 + (1 - (value - low) / (high - low)) * height:.1f}"
            for at, value in line
        )
        parts.append(f"<polyline points='{places}' stroke='{COLORS[number % len(COLORS)]}'/>")
    return f"<svg width={width} height={height + 14}>{''.join(parts)}</svg>"


def _legend(lines: list[tuple[str, list[tuple[float, float]]]]) -> str:
    names = [
        f"<span style='color:{COLORS[number % len(COLORS)]}'>━ </span>{html.escape(name)}"
        for number, (name, _) in enumerate(lines)
    ]
    return f"<p>{'&ensp;'.join(names)}</p>"


def _figure(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value:.0%}"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    return f"{value:.3g}" + (" s" if unit == "s" else "")
