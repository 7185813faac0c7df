"""An episode goes to disk and comes back as it was: rollouts, checkpoints, branches, and what an environment said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from rayzero.services.schema.episodes import Branch, EpisodeEnd, EpisodeOutcome, ToolCall, Turn
from rayzero.services.schema.messages import ChatMessage, Completion, Group, VersionSpan
from rayzero.services.store.episode_rows import episode_row, with_episode
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.rollout_file import read_groups, rollout_lines
from rayzero.services.store.run_state import PackedState, read_state
from tests.fakes import make_completion, make_group
from tests.plain_equality import same, unsaid

CALL = ToolCall(name="add", arguments={"number": 3}, call_id="c1")
MESSAGES = (
    ChatMessage(role="assistant", content="", reasoning="hm", tool_calls=(CALL, ToolCall(name="", error="no JSON"))),
    ChatMessage(role="tool", content="3", tool_call_id="c1"),
    ChatMessage(role="assistant", content="three"),
)


def track(num_tokens: int, observed: slice, version: int = 4) -> Completion:
    """A completion in which the environment spoke."""
    sampled = np.ones(num_tokens, dtype=np.bool_)
    sampled[observed] = False
    return Completion(
        text="three",
        token_ids=np.arange(num_tokens, dtype=np.int32),
        rollout_logprobs=np.where(sampled, -0.25, np.nan).astype(np.float32),
        version_spans=(VersionSpan(start=0, end=num_tokens, policy_version=version),),
        finish_reason="stop",
        is_sampled=sampled,
        turns=(
            Turn(start=0, end=2, finish_reason="stop", tool_calls=(CALL,), engine_s=0.5, environment_s=0.25),
            Turn(start=4, end=num_tokens, finish_reason="stop", reward=1.0),
        ),
        routed_experts=np.arange((num_tokens - 1) * 2 * 3, dtype=np.uint16).reshape(num_tokens - 1, 2, 3) * 300,
    )


def without_routing(completion: Completion) -> Completion:
    """What rollouts on disk hold of an episode: routing is larger than all else of it."""
    branches = (replace(each, completion=without_routing(each.completion)) for each in completion.branches)
    return replace(completion, routed_experts=None, branches=tuple(branches))


def episode() -> Completion:
    """One with a branch."""
    outcome = EpisodeOutcome(
        end=EpisodeEnd.MAX_TURNS,
        reward=0.5,
        messages=MESSAGES,
        turn_rewards=(None, 1.0),
        environment_s=(0.25, 0.0),
        metrics={"tool_calls": 2.0},
        reason="eight turns were not enough",
    )
    branch = Branch(parent=0, fork=3, completion=track(5, slice(2, 4)), reason="rewritten")
    return replace(track(7, slice(2, 4)), branches=(branch,), end=EpisodeEnd.MAX_TURNS, outcome=outcome)


def with_rollout(completion: Completion) -> Group:
    """A group whose first completion is this one."""
    group = make_group(3)
    first, *rest = group.rollouts
    return replace(group, rollouts=(replace(first, completion=completion), *rest))


def test_the_episode_says_something_in_every_field() -> None:
    whole = episode()
    assert whole.outcome is not None
    paths = [path for each in whole.branches for path in (whole, each.completion)]
    assert unsaid(Completion, paths) == unsaid(Branch, whole.branches) == unsaid(EpisodeOutcome, [whole.outcome]) == []
    assert unsaid(Turn, whole.turns) == unsaid(ChatMessage, MESSAGES) == []
    assert unsaid(ToolCall, [call for message in MESSAGES for call in message.tool_calls]) == []


def test_an_episode_comes_back_from_the_rollouts_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "update_000001.jsonl"
    append_lines(file, list(rollout_lines(with_rollout(episode()))))
    (group,) = read_groups(file)
    assert same(group.rollouts[0].completion, without_routing(episode()))
    assert same(group.rollouts[1].completion, make_completion())
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert rows[0]["episode"]["observed"] == [[2, 4]] and "episode" not in rows[1]


def test_and_from_a_checkpoint(tmp_path: Path) -> None:
    group = with_rollout(episode())
    state = {
        "buffer": {
            "version": 1,
            "next_group_id": 4,
            "num_held": 0,
            "dropped": {},
            "entries": [(3, group.prompt, 0, group)],
        },
        "prompts": {},
        "accuracies": {},
        "num_tokens": 0,
        "num_samples": 0,
    }
    PackedState.of(state).write(tmp_path)
    entries = read_state(tmp_path, lambda prompt_id: group.prompt)["buffer"]["entries"]
    assert same(entries[0][3].rollouts[0].completion, episode())


def test_what_is_no_episode_has_no_row() -> None:
    assert episode_row(make_completion()) is None
    assert with_episode(make_completion(), None).is_sampled is None
