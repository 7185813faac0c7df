"""A run's curves as a small SVG: text, drawn by itself, so that the same figures give the same file everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

Curve = Mapping[str, Sequence[float | None]]
"""By `update` and each panel's name: as many values each."""

PANELS = {"accuracy": "accuracy", "length": "tokens a completion"}
COLOURS = ("#1b6ca8", "#c8553d", "#2a7f62", "#8e5ba6", "#a07c1e", "#555555")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 380, 250, 48, 34, 40
SMOOTHED = 5
"""Updates that a point of a training curve averages: a batch has few prompts."""


class Line(NamedTuple):
    """One curve of one panel."""

    label: str
    points: tuple[tuple[float, float], ...]
    colour: str
    has_dots: bool
    """Measured on held-out prompts: a dot each. Others are of training batches, averaged over a few updates."""


def svg(title: str, held_out: Mapping[str, Curve], training: Mapping[str, Curve]) -> str:
    """Both panels: what held-out prompts showed, and the training batches, over updates."""
    panels = []
    for number, (name, head) in enumerate(PANELS.items()):
        lines = [*_lines(held_out, name, "held-out", 0), *_lines(training, name, "training", len(held_out))]
        panels.append(f'<g transform="translate({number * WIDTH} 0)">{"".join(_panel(head, name, lines))}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(PANELS)} {HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="11"><title>{escape(title)}</title>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n' + "\n".join(panels) + "\n</svg>\n"
    )


def smoothed(values: Sequence[float | None], width: int = SMOOTHED) -> list[float | None]:
    """The mean of each value and those before it, `width` in all; gaps are left out."""
    found: list[float | None] = []
    for end in range(1, len(values) + 1):
        window = [value for value in values[max(0, end - width) : end] if value is not None]
        found.append(sum(window) / len(window) if window else None)
    return found


def _lines(curves: Mapping[str, Curve], name: str, kind: str, first: int) -> Iterator[Line]:
    for number, (stage, curve) in enumerate(curves.items()):
        values = curve.get(name)
        if not values:
            continue
        shown = values if kind == "held-out" else smoothed(values)
        points = tuple(
            (float(update), float(value))
            for update, value in zip(curve["update"], shown, strict=True)
            if update is not None and value is not None
        )
        colour = COLOURS[(first + number) % len(COLOURS)]
        yield Line(f"{stage} {kind}".strip(), points, colour, kind == "held-out")


def _panel(head: str, name: str, lines: Sequence[Line]) -> Iterator[str]:
    points = [point for line in lines for point in line.points]
    last = max((update for update, _ in points), default=1.0) or 1.0
    top = 1.0 if name == "accuracy" else _ceiling(max((value for _, value in points), default=1.0))
    right, floor = WIDTH - 12, HEIGHT - BOTTOM

    def place(update: float, value: float) -> str:
        return f"{LEFT + (right - LEFT) * update / last:.1f},{floor - (floor - TOP) * value / top:.1f}"

    yield f'<text x="{LEFT}" y="18" font-size="13">{escape(head)}</text>'
    for part in range(5):
        y, value = floor - (floor - TOP) * part / 4, top * part / 4
        label = f"{value:.0%}" if name == "accuracy" else f"{value:g}"
        yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555555">{label}</text>'
    yield f'<text x="{LEFT}" y="{HEIGHT - 24}" fill="#555555">0</text>'
    yield f'<text x="{right}" y="{HEIGHT - 24}" text-anchor="end" fill="#555555">update {last:g}</text>'
    for number, line in enumerate(lines):
        way = " ".join(place(*point) for point in line.points)
        width = 2.2 if line.has_dots else 1.2
        yield f'<polyline points="{way}" fill="none" stroke="{line.colour}" stroke-width="{width}"/>'
        if line.has_dots:
            for point in line.points:
                across, down = place(*point).split(",")
                yield f'<circle cx="{across}" cy="{down}" r="3" fill="{line.colour}"/>'
        x = LEFT + number * (right - LEFT) / max(len(lines), 2)
        yield f'<text x="{x:.1f}" y="{HEIGHT - 8}" fill="{line.colour}">{escape(line.label)}</text>'


def _ceiling(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten: quarters of it are short numbers."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value)
