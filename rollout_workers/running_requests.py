"""Which of an engine's requests belong to which group, and which groups are not wanted any more."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager


class RunningRequests:
    """A group has one request, or one for each completion that new weights cut off."""

    def __init__(self) -> None:
        """Nothing runs."""
        self._by_group: dict[int, set[str]] = {}
        self._given_up: set[int] = set()
        self._numbers = itertools.count()

    def next_number(self) -> int:
        """Never the same twice: a request's id must be new to the engine."""
        return next(self._numbers)

    @contextmanager
    def group(self, group_id: int) -> Iterator[None]:
        """While the block runs, the group can be given up."""
        self._by_group.setdefault(group_id, set())
        try:
            yield
        finally:
            if not self._by_group.get(group_id):
                self._by_group.pop(group_id, None)
                self._given_up.discard(group_id)

    @contextmanager
    def request(self, group_id: int) -> Iterator[str]:
        """A new request's id; it runs as long as the block does."""
        request_id = f"{group_id}-{self.next_number()}"
        running = self._by_group.setdefault(group_id, set())
        running.add(request_id)
        try:
            yield request_id
        finally:
            running.discard(request_id)

    def give_up(self, group_id: int) -> list[str]:
        """The group is not wanted any more; what of it runs now. Nothing when it has ended."""
        if group_id not in self._by_group:
            return []
        self._given_up.add(group_id)
        return sorted(self._by_group[group_id])

    def is_given_up(self, group_id: int) -> bool:
        """Whether `give_up` was called since the group began."""
        return group_id in self._given_up

    def all(self) -> list[str]:
        """Everything that runs."""
        return sorted(request_id for request_ids in self._by_group.values() for request_id in request_ids)
