"""What Ray says by itself does not reach a run's terminal."""

from __future__ import annotations

import logging

import pytest
from ray._private import worker

from rayzero.services.run.ray_session import log_what_ray_prints


def test_rays_words_on_a_dead_process_go_to_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)  # put back afterwards
    log_what_ray_prints()
    with caplog.at_level(logging.WARNING):
        worker.print_to_stdstream(
            {"lines": ["A worker died or was killed"], "pid": "raylet", "is_err": False}, ignore_prefix=False
        )
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == ["ray: A worker died or was killed"]
    assert "print_to_stdstream" in worker.listen_error_messages.__code__.co_names, "Ray prints them in another way now"
