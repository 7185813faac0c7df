"""What a dashboard is made of: panels, and the PromQL that most of them have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["stat", "timeseries", "heatmap", "state-timeline"]
SELECTED = '{run=~"$run"}'


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: what it shows, in which unit, and how large."""

    title: str
    targets: tuple[tuple[str, str], ...]
    """(PromQL, legend) of every line."""
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 7
    help: str = ""
    stack: bool = False
    needs: str = ""
    """What must be there for it to show anything, where that is not every run."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard."""

    uid: str
    title: str
    panels: tuple[Panel, ...]


def gauge(name: str, legend: str = "{{run}}") -> tuple[tuple[str, str], ...]:
    """One line: a gauge as it is."""
    return ((f"rayzero_{name}{SELECTED}", legend),)


def stat(title: str, expression: str, unit: str = "short", help: str = "") -> Panel:
    """A number alone."""
    return Panel(title, ((expression, "{{run}}"),), unit, kind="stat", width=4, height=4, help=help)


def rate(name: str, by: str, window: str = "$__rate_interval") -> str:
    """A counter a second."""
    return f"sum by ({by}) (rate(rayzero_{name}{SELECTED}[{window}]))"


def share(name: str, label: str) -> str:
    """Each value of a label as a share of all of them."""
    return f"{rate(name, f'run, {label}')} / on (run) group_left {rate(name, 'run')}"


def quantile(q: float, name: str, by: str = "run") -> str:
    """Of a histogram, over five minutes."""
    return f"histogram_quantile({q}, sum by ({by}, le) (rate(rayzero_{name}_bucket{SELECTED}[5m])))"
