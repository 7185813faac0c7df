"""The report's drawing: figures by model as bars with their intervals, RL stages as curves over updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SHOWN = ("accuracy", "format", "language", "length")
CURVES = {
    "accuracy": "accuracy",
    "length": "tokens a completion",
    "language": "share of words in the language asked for",
}
HELD_OUT = "held_out"
"""Where a stage's curves hold those of the held-out prompts."""
SMOOTHED = 5
"""Updates that a point of a curve averages: a batch has few prompts."""


def draw(
    results: Mapping[str, Mapping[str, Any]],
    curves: Mapping[str, Mapping[str, Any]],
    png: Path,
    svg: Path,
) -> None:
    """Write both files. A figure that no model has gets no axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    verifiable = {model: _most_figures(by_source) for model, by_source in results.items()}
    names = [name for name in SHOWN if any(name in figures for figures in verifiable.values())]
    drawn = [name for name in CURVES if any(name in curve for curve in curves.values())]
    figure = pyplot.figure(figsize=(12, 8 if names and drawn else 4), layout="constrained")
    try:
        rows = figure.subfigures(2 if names and drawn else 1, 1, squeeze=False)[:, 0]
        if names:
            for axis, name in zip(rows[0].subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
                _bars(axis, name, verifiable)
        if drawn:
            for axis, name in zip(rows[-1].subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
                _lines(axis, name, curves)
        figure.savefig(png, dpi=120)
        figure.savefig(svg)
    finally:
        pyplot.close(figure)


def smoothed(values: Sequence[float | None], width: int = SMOOTHED) -> list[float]:
    """The mean of each value and those before it, `width` in all; gaps are left out."""
    found = []
    for end in range(1, len(values) + 1):
        window = [value for value in values[max(0, end - width) : end] if value is not None]
        found.append(sum(window) / len(window) if window else float("nan"))
    return found


def _most_figures(by_source: Mapping[str, Any]) -> Mapping[str, Any]:
    """The source with most to show: of a mix, the one with thoughts to judge."""
    apart = {source: figures for source, figures in by_source.items() if source != "all"} or by_source
    return max(apart.values(), key=len)


def _bars(axis: Any, name: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """One bar a model, the first at the top; a model without the figure has an empty place."""
    models = list(results)[::-1]
    values = [results[model].get(name, {"mean": 0.0, "se": None}) for model in models]
    spread = [1.96 * (value["se"] or 0.0) for value in values]
    axis.barh(range(len(models)), [value["mean"] for value in values], xerr=spread, color="#4a78a8", capsize=2)
    axis.set_yticks(range(len(models)), models)
    axis.set_title("tokens a completion" if name == "length" else name)
    if name != "length":
        axis.set_xlim(0, 1)


def _lines(axis: Any, name: str, curves: Mapping[str, Mapping[str, Any]]) -> None:
    """Lines of the training batches, as sampled; dots of the held-out prompts."""
    for stage, curve in curves.items():
        if name not in curve:
            continue
        (line,) = axis.plot(curve["update"], smoothed(curve[name]), label=stage)
        held_out = curve.get(HELD_OUT) or {}
        if name in held_out:
            axis.plot(held_out["update"], held_out[name], "o", markersize=4, color=line.get_color())
    axis.set_xlabel("update")
    # Beside each other three titles are wider than the figure: in two lines, and of dots only where there are some.
    dots = any(name in (curve.get(HELD_OUT) or {}) for curve in curves.values())
    axis.set_title(CURVES[name] + "\ntraining batches" + (", held-out as dots" if dots else ""), fontsize=10)
    axis.legend(fontsize=7)
