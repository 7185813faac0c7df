"""What a difference between two versions would take: nothing at no rate, all at a large one."""

from __future__ import annotations

from benchmarks.weight_changes import measure


def test_the_share_grows_with_the_rate() -> None:
    shares = [measure(rate, 20_000, 3, 0.0).changed for rate in (0.0, 1e-6, 1e-4, 1e-1)]
    assert shares[0] == 0.0 and shares == sorted(shares) and shares[-1] > 0.95
    assert 0.002 < shares[1] < 0.03, "a step of 1e-6 against a spacing of 1e-4 at weights of 0.02"
    assert measure(1e-1, 1000, 1, 0.0).sent == 1.0
