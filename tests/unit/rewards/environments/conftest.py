"""Hosts live as long as a test's module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.environment_hosts import hosts_kept


@pytest.fixture(scope="module", autouse=True)
def _hosts() -> Iterator[None]:
    with hosts_kept():
        yield
