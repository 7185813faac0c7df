"""What a step is, and what it says: figures, each beside its target where it has one. Standard library alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Device = Literal["cpu", "cuda"]
Unit = Literal["", "tokens/s", "ms", "s", "%", "GiB"]

LEAST_DEADLINE_S = {"cuda": 60.0, "cpu": 600.0}
DEADLINE_FACTOR = 2.5
"""Of a step's estimate: what takes longer hangs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One figure of a step. Times are in seconds and shares in fractions, whatever they are shown in."""

    key: str
    what: str
    unit: Unit = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        """For the table; empty where there is none."""
        if self.at_least is not None:
            return f"≥ {self.show(self.at_least)}"
        return "" if self.at_most is None else f"≤ {self.show(self.at_most)}"

    def met(self, value: Any) -> bool | None:
        """Whether `value` is as good as the target; None where there is no target."""
        if self.at_least is not None:
            return bool(value >= self.at_least)
        return None if self.at_most is None else bool(value <= self.at_most)

    def show(self, value: Any) -> str:
        """`value` in this figure's unit."""
        if not isinstance(value, int | float):
            return str(value)
        if self.unit == "ms":
            return f"{value * 1000:,.1f} ms"
        if self.unit == "%":
            return f"{value:.0%}"
        if self.unit == "tokens/s":
            return f"{value:,.0f} tokens/s"
        number = f"{value:,d}" if isinstance(value, int) else f"{value:,.3g}"
        return f"{number} {self.unit}".strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One thing to find out, in a process of its own."""

    name: str
    what: str
    work: str
    """`module:function`, called with a `Context` (context.py)."""
    cuda_s: float
    """What it takes on an H200, as far as can be said before it has run on one."""
    cpu_s: float | None = None
    """What its small form takes on two cores; None: it has none."""
    needs: str = "CUDA"
    """Why it has none."""
    figures: Sequence[Figure] = ()
    profile: str = ""
    """`module:function` that writes profile.txt when a target was missed."""
    profile_s: float = 45.0
    beside: str = ""
    """On a GPU, steps in a row of one `beside` run side by side: what they find out is not how fast anything is."""

    def estimate_s(self, device: Device) -> float:
        """Seconds."""
        return self.cuda_s if device == "cuda" else float(self.cpu_s or 0.0)

    def deadline_s(self, device: Device) -> float:
        """Seconds after which it is killed."""
        return max(LEAST_DEADLINE_S[device], DEADLINE_FACTOR * self.estimate_s(device))


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """Steps in their order."""

    name: str
    title: str
    num_gpus: int
    steps: Sequence[Step]

    def step(self, name: str) -> int:
        """Its place.

        Raises:
            ValueError: there is no such step; says which there are.
        """
        names = [step.name for step in self.steps]
        if name not in names:
            raise ValueError(f"no step is called {name}: {', '.join(names)}")
        return names.index(name)
