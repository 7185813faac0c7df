"""Episodes as plain data, for rollouts on disk and for checkpoints: turns, tool calls, branches, and how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.services.schema.episodes import Branch, EpisodeEnd, EpisodeOutcome, ToolCall, Turn
from rayzero.services.schema.messages import ChatMessage, Completion, VersionSpan

Row = dict[str, Any]


def message_row(message: ChatMessage) -> Row:
    """A message; what it does not have is left out."""
    row: Row = {"role": message.role, "content": message.content}
    if message.reasoning:
        row["reasoning"] = message.reasoning
    if message.tool_calls:
        row["tool_calls"] = [_call_row(call) for call in message.tool_calls]
    if message.tool_call_id:
        row["tool_call_id"] = message.tool_call_id
    return row


def read_message(row: Mapping[str, Any]) -> ChatMessage:
    """The message of a `message_row`."""
    return ChatMessage(
        role=row["role"],
        content=row["content"],
        reasoning=row.get("reasoning", ""),
        tool_calls=tuple(ToolCall(**call) for call in row.get("tool_calls", ())),
        tool_call_id=row.get("tool_call_id", ""),
    )


def episode_row(completion: Completion) -> Row | None:
    """What an episode's completion has beyond another one's; None where it is no episode's."""
    if completion.end is None and completion.is_sampled is None and not completion.turns:
        return None
    return {
        "end": None if completion.end is None else completion.end.value,
        **_track_row(completion),
        "branches": [_branch_row(branch) for branch in completion.branches],
        "outcome": None if completion.outcome is None else _outcome_row(completion.outcome),
    }


def with_episode(completion: Completion, row: Mapping[str, Any] | None) -> Completion:
    """The completion with what an `episode_row` holds."""
    if row is None:
        return completion
    return replace(
        _with_track(completion, row),
        end=None if row["end"] is None else EpisodeEnd(row["end"]),
        branches=tuple(_branch(each) for each in row["branches"]),
        outcome=None if row["outcome"] is None else _outcome(row["outcome"]),
    )


def read_logprobs(values: Sequence[float | None]) -> NDArray[np.float32]:
    """[T]. A file has null for −inf: a batch that is made again must not meet a NaN where the first had an infinite
    ratio. What an environment said is NaN again once its place is known."""
    return np.asarray([-np.inf if value is None else value for value in values], dtype=np.float32)


def _track_row(completion: Completion) -> Row:
    """Where the environment spoke, as [start, end) pairs, and the turns."""
    return {
        "observed": None if completion.is_sampled is None else _runs(~completion.is_sampled),
        "turns": [
            {
                "start": turn.start,
                "end": turn.end,
                "finish_reason": turn.finish_reason,
                "tool_calls": [_call_row(call) for call in turn.tool_calls],
                "reward": turn.reward,
                "engine_s": turn.engine_s,
                "environment_s": turn.environment_s,
            }
            for turn in completion.turns
        ],
    }


def _with_track(completion: Completion, row: Mapping[str, Any]) -> Completion:
    turns = tuple(
        Turn(**{**turn, "tool_calls": tuple(ToolCall(**call) for call in turn["tool_calls"])}) for turn in row["turns"]
    )
    if row["observed"] is None:
        return replace(completion, turns=turns)
    sampled = np.ones(completion.num_tokens, dtype=np.bool_)
    logprobs = completion.rollout_logprobs.copy()
    for start, end in row["observed"]:
        sampled[start:end] = False
        logprobs[start:end] = np.nan
    return replace(completion, turns=turns, is_sampled=sampled, rollout_logprobs=logprobs)


def _branch_row(branch: Branch) -> Row:
    completion = branch.completion
    return {
        "parent": branch.parent,
        "fork": branch.fork,
        "reason": branch.reason,
        "completion": completion.text,
        "token_ids": completion.token_ids.tolist(),
        "rollout_logprobs": [float(value) if np.isfinite(value) else None for value in completion.rollout_logprobs],
        "versions": [[span.start, span.end, span.policy_version] for span in completion.version_spans],
        "finish_reason": completion.finish_reason,
        **_track_row(completion),
    }


def _branch(row: Mapping[str, Any]) -> Branch:
    completion = Completion(
        text=row["completion"],
        token_ids=np.asarray(row["token_ids"], dtype=np.int32),
        rollout_logprobs=read_logprobs(row["rollout_logprobs"]),
        version_spans=tuple(VersionSpan(start=a, end=b, policy_version=v) for a, b, v in row["versions"]),
        finish_reason=row["finish_reason"],
    )
    return Branch(parent=row["parent"], fork=row["fork"], reason=row["reason"], completion=_with_track(completion, row))


def _outcome_row(outcome: EpisodeOutcome) -> Row:
    return {
        "end": outcome.end.value,
        "reward": outcome.reward,
        "messages": [message_row(message) for message in outcome.messages],
        "turn_rewards": list(outcome.turn_rewards),
        "environment_s": list(outcome.environment_s),
        "metrics": dict(outcome.metrics),
        "reason": outcome.reason,
    }


def _outcome(row: Mapping[str, Any]) -> EpisodeOutcome:
    return EpisodeOutcome(
        end=EpisodeEnd(row["end"]),
        reward=row["reward"],
        messages=tuple(read_message(message) for message in row["messages"]),
        turn_rewards=tuple(row["turn_rewards"]),
        environment_s=tuple(row["environment_s"]),
        metrics=dict(row["metrics"]),
        reason=row["reason"],
    )


def _call_row(call: ToolCall) -> Row:
    row: Row = {"name": call.name, "arguments": dict(call.arguments), "call_id": call.call_id}
    return {**row, "error": call.error} if call.error else row


def _runs(where: NDArray[np.bool_]) -> list[list[int]]:
    """The stretches that are true, as [start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(np.int8)))
    return [[int(start), int(end)] for start, end in edges.reshape(-1, 2)]
