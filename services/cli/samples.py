"""`rayzero samples RUN`: what a run's model wrote, and what it was given for it; as a table, lines or one HTML file."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from rayzero.services.cli.client import find_directory
from rayzero.services.cli.page_data import page_data
from rayzero.services.observe.browse.page import file_page
from rayzero.services.observe.browse.rollout_index import Filter, RolloutIndex, Sort
from rayzero.services.observe.browse.rollout_tokens import TokenTexts
from rayzero.services.observe.browse.rollout_view import show_group
from rayzero.services.observe.text import shortened
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.plain import json_text
from rayzero.services.schema.terminal import terminal
from rayzero.services.store.run_directory import RunDirectory, write_atomically

Format = Literal["table", "brief", "jsonl", "html"]
MAX_TEXT = 300


def samples(
    run: str, runs: Path, wanted: Filter, sort: Sort, limit: int, form: Format, out: Path | None, key: str | None
) -> None:
    """Print (or write to `out`) the groups that match.

    Raises:
        UsageError: no such run or group, or a page of nothing.
    """
    directory = RunDirectory(find_directory(run, runs))
    index, tokens = RolloutIndex(directory.path), TokenTexts(directory)
    try:
        index.refresh()
        summaries, total = index.groups(wanted, sort, limit, 0)
        if key is not None:
            summaries, total = [index.summary(key)], 1
        if not summaries and (form != "html" or wanted != Filter()):  # a page has the run's health and curves, too
            none = f"none of {index.choices()['num_rollouts']} rollouts in {directory.path} matches"
            if form == "html":
                raise UsageError(f"{none}: no page was written")
            print(none, file=sys.stderr)
        groups = {summary["key"]: show_group(index, tokens, summary["key"]) for summary in summaries}
        if form == "html":
            out = out or Path(f"{directory.path.name}-rollouts.html")
            write_atomically(out, file_page(page_data(directory, wanted, sort, summaries, groups)))
            print(f"{out}: {len(groups)} of {total} groups", file=sys.stderr)
        elif form == "jsonl":
            _write("".join(json_text(group) + "\n" for group in groups.values()), out)
        else:
            for group in groups.values():
                terminal().print(_table(group) if form == "table" else escape(_brief(group)), soft_wrap=form == "brief")
            if groups:
                print(f"{len(groups)} of {total} groups", file=sys.stderr)
    finally:
        index.close()


def _title(group: dict[str, Any]) -> str:
    lines = [
        f"{group['key']}  {group['prompt_id']}",
        f"prompt: {shortened(group['messages'][-1]['content'], MAX_TEXT)}",
    ]
    if group["answer"] is not None:
        lines.append(f"answer: {shortened(str(group['answer']), 80)}")
    return "\n".join(lines)


def _brief(group: dict[str, Any]) -> str:
    """What was asked and how it went, without the completions."""
    rewards = [rollout["reward"] for rollout in group["rollouts"] if rollout["reward"] is not None]
    mean = f", reward {sum(rewards) / len(rewards):.3g}" if rewards else ""
    counts = Counter(rollout["status"] for rollout in group["rollouts"])
    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return f"{_title(group)}\n{said}{mean}\n"


def _table(group: dict[str, Any]) -> Table:
    table = Table(title=escape(_title(group)), title_justify="left", title_style="bold", show_lines=True)
    for name in ("reward", "verdict", "tokens", "KL", "versions", "completion"):
        table.add_column(name, overflow="fold")
    for rollout in group["rollouts"]:
        reward = "\n".join(("–" if rollout["reward"] is None else f"{rollout['reward']:.3g}", *components(rollout)))
        versions = ", ".join(str(span[2]) for span in rollout["versions"])
        verdict = f"{rollout['status']}: {shortened(rollout['reason'], 120)}"
        kl = rollout.get("kl_rollout")
        length = f"{rollout['num_tokens']} {rollout['finish_reason']}"
        said = rollout["completion"]
        if (episode := rollout.get("episode")) is not None and episode["outcome"] is not None:
            length, said = f"{rollout['num_tokens']} {episode['end']}", conversation(episode["outcome"]["messages"])
        cells = (reward, verdict, length, "–" if kl is None else f"{kl:.2g}", versions)
        table.add_row(*map(escape, cells), escape(shortened(said, MAX_TEXT)))
    return table


def components(rollout: Mapping[str, Any]) -> Iterator[str]:
    """What a reward is the sum of, a line a component: its score times its weight. What has no weight stands alone."""
    scores, parts = rollout["components"], rollout.get("parts")
    for name in dict.fromkeys((*(parts or ()), *scores)):
        if parts is None or "/" in name:
            yield f"{name} {scores[name]:.3g}"
        elif name in parts:
            weight, score = parts[name]
            gate = " (gate closed)" if score == 0 and scores.get(name, 0) else ""
            yield f"{name} {score:.3g} × {weight:g}{gate}"
        else:
            yield f"{name} {scores[name]:.3g} × 0"


def conversation(messages: list[dict[str, Any]]) -> str:
    """An episode in a line a message: who spoke, what was said, which tools were called."""
    lines = []
    for message in messages:
        calls = [f"{call['name']}({json_text(call['arguments'])})" for call in message.get("tool_calls", ())]
        lines.append(" ".join(filter(None, (f"{message['role']}:", message["content"], *calls))))
    return "\n".join(lines)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomically(out, text)
