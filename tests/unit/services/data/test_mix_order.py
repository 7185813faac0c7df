"""The order of prompts and demonstrations: by weight, every row once an epoch, the same for what is resumed."""

from __future__ import annotations

from rayzero.services.data.mix_order import MixOrder


def drawn(order: MixOrder, count: int) -> list[tuple[int, int]]:
    return [order.next() for _ in range(count)]


def test_sources_take_turns_by_weight() -> None:
    sources = [source for source, _ in drawn(MixOrder([100, 100], [3.0, 1.0], seed=0), 40)]
    assert sources.count(0) == 30
    for count in range(4, 40):
        assert abs(sources[:count].count(1) - count / 4) < 1


def test_every_row_once_an_epoch_in_another_order_each() -> None:
    rows = [row for _, row in drawn(MixOrder([7], [1.0], seed=3), 21)]
    epochs = [rows[0:7], rows[7:14], rows[14:21]]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_follows_from_the_seed() -> None:
    first, again, other = (drawn(MixOrder([9, 4], [1, 1], seed=seed), 30) for seed in (1, 1, 2))
    assert first == again != other


def test_the_cursor_is_all_that_a_resume_needs() -> None:
    whole = drawn(MixOrder([9, 4], [1, 2], seed=1), 30)
    first, second = MixOrder([9, 4], [1, 2], seed=1), MixOrder([9, 4], [1, 2], seed=1)
    drawn(first, 17)
    second.given = list(first.given)
    assert drawn(second, 13) == whole[17:]


def test_without_shuffle_rows_come_as_they_stand() -> None:
    assert drawn(MixOrder([2], [1.0], seed=1, shuffle=False), 4) == [(0, 0), (0, 1), (0, 0), (0, 1)]
