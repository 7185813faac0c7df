"""How many of the bf16 weights change from one update to the next: what `cluster.delta_sync` saves.

    python -m benchmarks.weight_changes

fp32 masters are stepped by AdamW at usual rates; the weights are those that a sync sends. Gradients are noise of a size
for all weights, with a part that stays from update to update: AdamW's step is about the learning rate whatever their
size, so what counts is the rate against the spacing of bf16 around each weight.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from rayzero.learner.model.rounding import rounded
from rayzero.services.schema.broadcast.wire import DELTA_SHARE

LEARNING_RATES = (1e-6, 3e-6, 1e-5, 1e-4, 1e-3)
WEIGHT_STD = 0.02
"""Of a published model's matrices: between 0.01 and 0.05."""
BITS_SHARE, MOST_SHARE = 1 / 16, 1 / DELTA_SHARE
"""Of all bytes: the bits that say which values are new; and a delta that is sent at all."""
WARM_UP_UPDATES = 20


@dataclass(frozen=True, slots=True)
class WeightChange:
    """Between two updates."""

    learning_rate: float
    changed: float
    """Share of the values."""
    sent: float
    """Bytes that are sent, of those of all values."""


def measure(learning_rate: float, num_values: int, num_updates: int, steadiness: float, seed: int = 0) -> WeightChange:
    """The mean over some updates, after AdamW's moments have settled. `steadiness`: the share of a gradient that is the
    same at every update."""
    generator = torch.Generator().manual_seed(seed)
    masters = torch.nn.Parameter(torch.randn(num_values, generator=generator) * WEIGHT_STD)
    steady = torch.randn(num_values, generator=generator)
    adam = torch.optim.AdamW([masters], lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    before, changed = rounded(masters.detach(), torch.bfloat16), 0.0
    for update in range(WARM_UP_UPDATES + num_updates):
        noise = torch.randn(num_values, generator=generator)
        masters.grad = steadiness * steady + (1 - steadiness) * noise
        adam.step()
        now = rounded(masters.detach(), torch.bfloat16)
        if update >= WARM_UP_UPDATES:
            changed += float((now != before).float().mean()) / num_updates
        before = now
    sent = BITS_SHARE + changed
    return WeightChange(learning_rate, changed, sent if sent <= MOST_SHARE else 1.0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", type=int, default=2_000_000)
    parser.add_argument("--updates", type=int, default=20)
    asked = parser.parse_args()
    print("| learning rate | gradient | bf16 values that change | bytes that are sent, of all |\n|---|---|---|---|")
    for rate in LEARNING_RATES:
        for steadiness, name in ((0.0, "noise"), (0.5, "half of it the same")):
            change = measure(rate, asked.values, asked.updates, steadiness)
            print(f"| {rate:g} | {name} | {change.changed:.1%} | {change.sent:.0%} |")


if __name__ == "__main__":
    main()
