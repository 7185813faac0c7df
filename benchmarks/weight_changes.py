"""How many bytes of the bf16 weights that engines are sent change from one update to the next: what a sync that sends
only differences could save.

    python -m benchmarks.weight_changes

fp32 masters are stepped by AdamW at usual rates; the weights are those that a sync sends. Gradients are noise of a size
for all weights, with a part that stays from update to update: AdamW's step is about the learning rate whatever their
size, so what counts is the rate against the spacing of bf16 around each weight.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

LEARNING_RATES = (1e-6, 3e-6, 1e-5, 1e-4, 1e-3)
WEIGHT_STD = 0.02
"""Of a published model's matrices: between 0.01 and 0.05."""
INDEX_BYTES, VALUE_BYTES = 2, 2
"""Of a change on the wire: the gap to the one before, and the new value."""
WARM_UP_UPDATES = 20


@dataclass(frozen=True, slots=True)
class WeightChange:
    """Between two updates."""

    learning_rate: float
    changed: float
    """Share of the values."""
    sent: float
    """Bytes of differences, of those of all values; at most 1, for then all are sent."""


def measure(learning_rate: float, num_values: int, num_updates: int, steadiness: float, seed: int = 0) -> WeightChange:
    """The mean over some updates, after AdamW's moments have settled. `steadiness`: the share of a gradient that is the
    same at every update."""
    generator = torch.Generator().manual_seed(seed)
    masters = torch.nn.Parameter(torch.randn(num_values, generator=generator) * WEIGHT_STD)
    steady = torch.randn(num_values, generator=generator)
    adam = torch.optim.AdamW([masters], lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    before, changed = masters.detach().bfloat16(), 0.0
    for update in range(WARM_UP_UPDATES + num_updates):
        noise = torch.randn(num_values, generator=generator)
        masters.grad = steadiness * steady + (1 - steadiness) * noise
        adam.step()
        now = masters.detach().bfloat16()
        if update >= WARM_UP_UPDATES:
            changed += float((now != before).float().mean()) / num_updates
        before = now
    return WeightChange(learning_rate, changed, min(1.0, changed * (INDEX_BYTES + VALUE_BYTES) / VALUE_BYTES))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", type=int, default=2_000_000)
    parser.add_argument("--updates", type=int, default=20)
    asked = parser.parse_args()
    print("| learning rate | gradient | bf16 values that change | bytes of differences, of all |\n|---|---|---|---|")
    for rate in LEARNING_RATES:
        for steadiness, name in ((0.0, "noise"), (0.5, "half of it the same")):
            change = measure(rate, asked.values, asked.updates, steadiness)
            print(f"| {rate:g} | {name} | {change.changed:.1%} | {change.sent:.0%} |")


if __name__ == "__main__":
    main()
