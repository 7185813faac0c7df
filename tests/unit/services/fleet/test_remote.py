"""What an actor raises, as the control plane hears of it."""

from __future__ import annotations

import pytest

from rayzero.services.fleet.remote import _own_error
from rayzero.services.schema.errors import RunDirectoryError, RunHalted, TaskFailedError


@pytest.mark.parametrize(
    ("cause", "kind", "text"),
    [
        (ValueError("bad:\n- `top_p` is 2\nmore"), TaskFailedError, "in save: ValueError: bad: - `top_p` is 2"),
        (KeyError(), TaskFailedError, "in save: KeyError: KeyError"),
        (OSError(28, "disk full", "/runs/a"), RunDirectoryError, "in save: /runs/a: disk full"),
        (RunHalted("loss is NaN"), RunHalted, "loss is NaN"),
    ],
)  # fmt: skip
def test_an_error_keeps_its_reason(cause: Exception, kind: type[Exception], text: str) -> None:
    error = _own_error(cause, "in save")
    assert (type(error), str(error)) == (kind, text)
