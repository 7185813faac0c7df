"""Groups on disk: one JSON object a completion, one a line; the learner's view of a group can be read back from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.messages import (
    Completion,
    Group,
    Prompt,
    Rollout,
    Verdict,
    VerdictStatus,
    VersionSpan,
)
from rayzero.services.store.episode_rows import episode_row, message_row, read_logprobs, read_message, with_episode
from rayzero.services.store.json_lines import read_lines


def rollout_lines(group: Group) -> Iterator[dict[str, Any]]:
    """One line a completion; the group's first line also holds the prompt's tokens."""
    for index, rollout in enumerate(group.rollouts):
        completion, verdict = rollout.completion, rollout.verdict
        yield {
            "group_id": group.group_id,
            "index": index,
            "prompt_id": group.prompt.prompt_id,
            "source": group.prompt.source,
            "worker": group.worker,
            "messages": [message_row(message) for message in group.prompt.messages],
            "answer": group.prompt.answer,
            "completion": completion.text,
            "reward": None if verdict.is_error else verdict.reward,
            "status": verdict.status.value,
            "components": dict(verdict.components),
            **({} if verdict.parts is None else {"parts": {name: list(part) for name, part in verdict.parts.items()}}),
            "reason": verdict.reason,
            **({"cause": verdict.cause.value} if verdict.cause is not None else {}),
            "seconds": verdict.seconds,
            **({"extra": dict(verdict.extra)} if verdict.extra else {}),
            **({"tests": [dict(test) for test in verdict.tests]} if verdict.tests else {}),
            "num_tokens": completion.num_tokens,
            "finish_reason": completion.finish_reason,
            "versions": [[span.start, span.end, span.policy_version] for span in completion.version_spans],
            "token_ids": completion.token_ids.tolist(),
            "rollout_logprobs": [float(value) for value in completion.rollout_logprobs],
            "kl_rollout": rollout.kl_rollout,
            **({} if (episode := episode_row(completion)) is None else {"episode": episode}),
            **({"prompt_token_ids": group.prompt_token_ids.tolist()} if index == 0 else {}),
        }


def read_groups(file: Path) -> list[Group]:
    """The groups of one rollouts file, as the learner saw them."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in read_lines(file):
        rows.setdefault(row["group_id"], []).append(row)
    return [_group(lines) for lines in rows.values()]


def _group(lines: list[dict[str, Any]]) -> Group:
    first = lines[0]
    return Group(
        group_id=first["group_id"],
        prompt=Prompt(
            prompt_id=first["prompt_id"],
            messages=tuple(read_message(message) for message in first["messages"]),
            answer=first["answer"],
            source=first["source"],
        ),
        prompt_token_ids=np.asarray(first["prompt_token_ids"], dtype=np.int32),
        rollouts=tuple(_rollout(line) for line in lines),
        worker=first["worker"],
    )


def _cause(line: dict[str, Any]) -> ErrorCause:
    """Of an error. Lines of before it had a field of its own have it at the head of the reason alone."""
    return ErrorCause(line["cause"]) if "cause" in line else ErrorCause.read(line["reason"])


def _rollout(line: dict[str, Any]) -> Rollout:
    status = VerdictStatus(line["status"])
    completion = Completion(
        text=line["completion"],
        token_ids=np.asarray(line["token_ids"], dtype=np.int32),
        rollout_logprobs=read_logprobs(line["rollout_logprobs"]),
        version_spans=tuple(VersionSpan(start=a, end=b, policy_version=v) for a, b, v in line["versions"]),
        finish_reason=line["finish_reason"],
    )
    return Rollout(
        completion=with_episode(completion, line.get("episode")),
        verdict=Verdict(
            reward=float("nan") if line["reward"] is None else line["reward"],
            components=line["components"],
            status=status,
            reason=line["reason"],
            seconds=line["seconds"],
            tests=tuple(line.get("tests", ())),
            cause=_cause(line) if status is VerdictStatus.ERROR else None,
            parts={name: tuple(part) for name, part in line["parts"].items()} if "parts" in line else None,
            extra=line.get("extra", {}),
        ),
    )
