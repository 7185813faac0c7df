"""Why an answer cannot be read. Raised and caught inside rewards/math only."""

from __future__ import annotations


class UnreadableError(Exception):
    """The text is no mathematical expression that this package knows, or is ambiguous; it may still be words."""


class TooLargeError(UnreadableError):
    """Reading or evaluating it would cost more than an honest answer does."""


class BadGoldError(Exception):
    """A gold answer that no answer could be compared with: a fault of the data, not of the completion."""
