"""The drawing of `rayzero bench time-to-reward`: held-out accuracy over seconds and over samples, both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.trl.reward_curve import Curve

COLOURS = {"rayzero": "#1f6fb2", "TRL": "#c8552b"}
LABELS: Mapping[Literal["seconds", "samples"], str] = {"seconds": "seconds of training", "samples": "samples"}


def draw(sides: Mapping[str, Sequence[Curve]], title: str, file: Path) -> None:
    """Write `file`; its suffix says the format. A thin line a seed, a thick one for their mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    try:
        for axis, (by, label) in zip(axes, LABELS.items(), strict=True):
            for name, curves in sides.items():
                _lines(axis, name, curves, by)
            axis.set_xlabel(label)
            axis.set_xlim(left=0)
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("held-out accuracy")
        axes[0].set_ylim(0, 1)
        axes[0].legend(loc="lower right")
        figure.suptitle(title, fontsize=10)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=120)
    finally:
        pyplot.close(figure)


def mean_line(curves: Sequence[Curve], by: Literal["seconds", "samples"]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The mean over seeds where all of them were still trained, each a straight line between its evaluations."""
    lines = [([getattr(p, by) for p in curve.points], [p.accuracy for p in curve.points]) for curve in curves]
    end = min(xs[-1] for xs, _ in lines)
    grid = np.unique([x for xs, _ in lines for x in xs if x <= end])
    return grid, np.mean([np.interp(grid, xs, ys) for xs, ys in lines], axis=0)


def _lines(axis: Any, name: str, curves: Sequence[Curve], by: Literal["seconds", "samples"]) -> None:
    colour = COLOURS[name]
    for curve in curves:
        xs, ys = [getattr(p, by) for p in curve.points], [p.accuracy for p in curve.points]
        axis.plot(xs, ys, color=colour, linewidth=0.8, alpha=0.5, marker=".", markersize=4)
    if curves:
        axis.plot(
            *mean_line(curves, by),
            color=colour,
            linewidth=2.5,
            label=name if len(curves) == 1 else f"{name}, mean of {len(curves)} seeds",
        )
