"""The order of demonstrations: by weight, every row once an epoch, the same for a resumed stage."""

from __future__ import annotations

from itertools import islice

from services.stages.sft import draws


def test_sources_take_turns_by_weight() -> None:
    drawn = list(islice(draws([100, 100], [3.0, 1.0], seed=0), 40))
    assert [part for part, _ in drawn].count(0) == 30
    for count in range(4, 40):
        assert abs([part for part, _ in drawn[:count]].count(1) - count / 4) < 1


def test_every_row_once_an_epoch_in_another_order_each() -> None:
    rows = [index for _, index in islice(draws([7], [1.0], seed=3), 21)]
    epochs = [rows[0:7], rows[7:14], rows[14:21]]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_follows_from_the_seed() -> None:
    first, again, other = (list(islice(draws([9, 4], [1, 1], seed=seed), 30)) for seed in (1, 1, 2))
    assert first == again != other
