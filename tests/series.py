"""The names under which Prometheus finds what the catalogue declares."""

from __future__ import annotations

from rayzero.services.observe.telemetry import CATALOGUE, Metric


def series_of(metric: Metric) -> tuple[str, ...]:
    """All names of one family's samples."""
    if metric.kind != "histogram":
        return (metric.family,)
    return tuple(f"{metric.family}_{suffix}" for suffix in ("bucket", "sum", "count"))


KNOWN = frozenset(name for metric in CATALOGUE for name in series_of(metric))
