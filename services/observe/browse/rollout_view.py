"""Groups as the browser shows them: completions side by side, their tokens, verdicts and tests."""

from __future__ import annotations

from typing import Any

from rayzero.services.observe.browse.rollout_index import Filter, RolloutIndex
from rayzero.services.observe.browse.rollout_tokens import TokenTexts
from rayzero.services.schema.errors import UsageError

GROUPS_COMPARED = 4


def show_group(index: RolloutIndex, tokens: TokenTexts, key: str) -> dict[str, Any]:
    """One group, as the index knows it.

    Raises:
        UsageError: there is none of that key.
    """
    rows = index.group(key)
    if not rows:
        raise UsageError(f"there is no group {key!r} in this run's rollouts")
    first = rows[0]
    return {
        "key": key,
        "prompt_id": first["prompt_id"],
        "source": first["source"],
        "worker": first["worker"],
        "messages": first["messages"],
        "answer": first["answer"],
        "dropped": first.get("dropped"),
        "versions": index.versions_of(first["prompt_id"]),
        "rollouts": [_rollout(row, tokens) for row in rows],
    }


def compare_groups(index: RolloutIndex, tokens: TokenTexts, prompt_id: str, a: int, b: int) -> dict[str, Any]:
    """One prompt's groups at two versions, `a` and `b`.

    Raises:
        UsageError: the prompt was not answered at one of them; names the versions at which it was.
    """
    index.refresh()
    sides = {}
    for name, version in (("a", a), ("b", b)):
        found, _ = index.groups(Filter(prompt_id=prompt_id, version=version), "newest", GROUPS_COMPARED, 0)
        if not found:
            known = ", ".join(str(row["version"]) for row in index.versions_of(prompt_id)) or "none"
            raise UsageError(f"{prompt_id} was not answered at version {version}; versions of it: {known}")
        sides[name] = show_group(index, tokens, found[0]["key"])
    return {"prompt_id": prompt_id, **sides}


def _rollout(row: dict[str, Any], tokens: TokenTexts) -> dict[str, Any]:
    """Without the prompt, which the group has, and with the tokens' texts."""
    shared = ("messages", "answer", "prompt_id", "source", "worker", "prompt_token_ids", "group_id")
    kept = {key: value for key, value in row.items() if key not in shared}
    kept["rollout_logprobs"] = [None if value is None else round(value, 4) for value in row["rollout_logprobs"]]
    kept["tokens"] = tokens.of(row["token_ids"])
    if (episode := row.get("episode")) is not None:
        branches = [{**branch, "tokens": tokens.of(branch["token_ids"])} for branch in episode["branches"]]
        kept["episode"] = {**episode, "branches": branches}
    return kept
