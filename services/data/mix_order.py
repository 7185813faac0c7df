"""Whose turn it is among weighted sources, and which of its rows: the one order of prompts and of demonstrations."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence


class MixOrder:
    """(source, row) for ever: sources take turns by weight, each goes through its rows in a new order an epoch.

    The cursor, `given`, is how many rows each source has had: everything else follows from it and the seed.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int, shuffle: bool = True) -> None:
        """`seed` decides every epoch's order; without `shuffle` rows come as they stand."""
        self.given = [0] * len(sizes)
        self._sizes, self._weights = sizes, weights
        self._seed, self._shuffle = seed, shuffle
        self._orders: list[tuple[int, Sequence[int]]] = [(-1, ())] * len(sizes)

    def next(self) -> tuple[int, int]:
        """The next source and its row; never ends."""
        source = self._whose_turn()
        return source, self.next_of(source)

    def next_of(self, source: int) -> int:
        """The source's next row, whosever turn it is."""
        epoch, position = divmod(self.given[source], self._sizes[source])
        self.given[source] += 1
        return self._order(source, epoch)[position]

    def _whose_turn(self) -> int:
        """The source that is furthest behind its share: after n rows no source is off by as much as one."""
        total, weights = sum(self.given) + 1, self._weights
        behind = [total * weight / sum(weights) - given for weight, given in zip(weights, self.given, strict=True)]
        return behind.index(max(behind))

    def _order(self, source: int, epoch: int) -> Sequence[int]:
        known, order = self._orders[source]
        if known != epoch:
            indices = array("Q", range(self._sizes[source]))
            if self._shuffle:
                random.Random(f"{self._seed}/{source}/{epoch}").shuffle(indices)
            self._orders[source] = (epoch, indices)
            order = indices
        return order
