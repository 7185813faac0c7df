"""How times, sizes, counts and long texts are put on a terminal: one way each."""

from __future__ import annotations

import math

from rayzero.services.loop.estimate import Z95
from rayzero.services.schema.printable import printable


def shortened(text: str, length: int = 160) -> str:
    """Printable, without the blanks around it, cut to `length` characters, the last of them an ellipsis."""
    text = printable(text.strip())
    return text if len(text) <= length else text[: length - 1] + "…"


def as_clock(seconds: float) -> str:
    """`m:ss` or `h:mm:ss`, e.g. 75 -> `1:15`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def as_rough_time(seconds: float) -> str:
    """Of an estimate: whole minutes, at least one, or tenths of hours."""
    if seconds < 3600:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.1f} h"


def as_size(num_bytes: float) -> str:
    """In the largest of B, KiB, MiB and GiB that leaves at least 1, e.g. 1536 -> `2 KiB`."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"


def as_count(number: float) -> str:
    """Three digits and k, M or G, e.g. 1_540_000 -> `1.54 M`."""
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} G"


def as_figure(value: float | None, form: str = ".3g") -> str:
    """A figure in that format; a dash where there is none."""
    return "–" if value is None else format(value, form)


def with_interval(mean: float, standard_error: float | None, form: str) -> str:
    """`82.4% ± 9.0%`: a mean and half of its 95 % interval; the mean alone where no error is known."""
    if standard_error is None or not math.isfinite(standard_error):
        return format(mean, form)
    return f"{mean:{form}} ± {Z95 * standard_error:{form}}"
