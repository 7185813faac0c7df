"""What one asks of a live run: a wait says how it goes, an end what comes next."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rayzero.services.cli import changes
from rayzero.services.cli.changes import scale, stop
from rayzero.services.cli.client import RunAddress
from rayzero.services.schema.errors import DeadlineError, RunUnreachable

ADDRESS = RunAddress("http://127.0.0.1:1")


def fleet(serving: int, coming: int = 0) -> dict[str, Any]:
    return {"rollout": {"target": 2, "serving": serving, "coming": coming, "draining": 0}}


class Answers:
    """A client whose run gives these states, one a question, the last for ever."""

    def __init__(self, *states: Any) -> None:
        self.states = list(states)

    def __call__(self, address: RunAddress) -> Answers:
        return self

    def meet(self) -> None:
        self.has_met = True

    def change(self, path: str, body: Any = None) -> Any:
        return {"before": {"rollout": 1}, "fleets": self._next()}

    def get(self, path: str) -> Any:
        state = self._next()
        if state is None:
            raise RunUnreachable("gone")
        return {"fleets": state}

    def _next(self) -> Any:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "POLL_S", 0.0)


def test_a_wait_says_who_serves_whenever_that_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = [fleet(1), fleet(1), fleet(1, 1), fleet(1, 1), fleet(2)]
    monkeypatch.setattr(changes, "RunClient", Answers(*states))
    scale(["rollout=2"], ADDRESS, 60.0, as_json=False)
    found = capsys.readouterr()
    assert found.err.splitlines() == ["rollout: 1 serving, 1 coming …", "rollout: 2 serving …"]
    assert found.out == "rollout: 1 -> 2 (2 serving)\n"
    monkeypatch.setattr(changes, "RunClient", Answers(*states))
    scale(["rollout=2"], ADDRESS, 60.0, as_json=True)
    found = capsys.readouterr()
    assert not found.err and json.loads(found.out) == {"before": {"rollout": 1}, "fleets": fleet(2)}


def test_a_wait_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "RunClient", Answers(fleet(1, 1)))
    with pytest.raises(DeadlineError, match=r"not there after 0.01 s .*`ray status` shows what it lacks"):
        scale(["rollout=2"], ADDRESS, 0.01, as_json=False)
    with pytest.raises(DeadlineError, match=r"has not ended within 0\.01 s"):
        stop(ADDRESS, 0.01, as_json=False)


def test_a_run_that_is_stopped_says_what_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(changes, "RunClient", Answers(fleet(1), fleet(1), None))
    stop(ADDRESS, 60.0, as_json=False)
    found = capsys.readouterr()
    assert found.out == "it has ended: the command that began it goes on from its last checkpoint\n"
    assert found.err == "it finishes the update under way and saves …\n"
    stop(ADDRESS, 0.0, as_json=True)
    found = capsys.readouterr()
    assert json.loads(found.out) == {"stopping": True, "ended": False} and not found.err


@pytest.mark.parametrize("as_json", [False, True])
def test_a_change_that_may_take_long_says_what_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    monkeypatch.setattr(changes, "RunClient", lambda *_: Answers(fleet(1)))
    changes.change("drain", ADDRESS, as_json, say=lambda _: "it has left", waits_for="rollout-1\x1b[2J finishes")
    found = capsys.readouterr()
    assert found.err == ("" if as_json else "rollout-1\\x1b[2J finishes …\n") and found.out


def test_a_run_that_is_gone_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunUnreachable):
        changes.change("checkpoint", ADDRESS, as_json=False, waits_for="it saves")
    assert not capsys.readouterr().err
