"""`rayzero bench page`: how soon the page of a finished run of 100,000 rollouts is there."""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

from rayzero.services.cli.samples import samples
from rayzero.services.observe.browse.rollout_index import Filter
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.rollout_file import rollout_lines
from rayzero.services.store.run_directory import RunDirectory
from tests.browser import open_page
from tests.fakes import make_group, make_recipe

GROUPS, SIZE = 25, 8
"""An update's groups, and rollouts of each."""
TOKENS = 120
"""Of a completion."""
WORDS = ("the", "sum", "of", "both", "is", "carried", "over", "to", "the", "next", "column", "and", "so", "it", "goes")


def write_run(path: Path, num_rollouts: int, seed: int = 0) -> RunDirectory:
    """A finished run of so many rollouts, as the recorder writes them; what was sampled is drawn from a few words."""
    rng, directory = random.Random(seed), RunDirectory(path)
    num_updates = num_rollouts // (GROUPS * SIZE)
    directory.prepare(make_recipe(num_updates=num_updates, groups_per_update=GROUPS, group_size=SIZE))
    first = make_group(0, rewards=[0.0] * SIZE)
    lines, said_before = list(rollout_lines(first)), [_completion(rng) for _ in range(200)]
    for update in range(1, num_updates + 1):
        file = directory.rollouts / f"update_{update:06d}.jsonl"
        with open(file, "w", encoding="utf-8") as stream:
            for group in range(GROUPS):
                _write_group(stream, lines, said_before, update, (update - 1) * GROUPS + group, rng)
    rows = [_row(update, update / num_updates, rng) for update in range(1, num_updates + 1)]
    append_lines(directory.file("metrics.jsonl"), rows, replace=True)
    held_out = [
        {"update": row["update"], "accuracy": row["train_accuracy"]} for row in rows[:: max(1, len(rows) // 20)]
    ]
    append_lines(directory.file("evaluations.jsonl"), held_out, replace=True)
    directory.file("summary.json").write_text("{}")
    directory.release()
    return directory


def _completion(rng: random.Random) -> dict[str, Any]:
    logprobs = [round(-rng.random(), 4) for _ in range(TOKENS)]
    text, tokens = " ".join(rng.choices(WORDS, k=TOKENS)), rng.choices(range(50_000), k=TOKENS)
    return {"completion": text, "num_tokens": TOKENS, "token_ids": tokens, "rollout_logprobs": logprobs}


def _write_group(
    stream: TextIO,
    lines: list[dict[str, Any]],
    said_before: list[dict[str, Any]],
    update: int,
    group_id: int,
    rng: random.Random,
) -> None:
    for line in lines:
        reward = float(rng.random() < update / 500)
        said = rng.choice(said_before) | {
            "group_id": group_id,
            "prompt_id": f"train/{group_id % 6000}",
            "reward": reward,
            "status": "correct" if reward else "wrong",
            "components": {"accuracy": reward},
            "versions": [[0, TOKENS, update - 1]],
            "kl_rollout": 1e-4 * rng.random(),
        }
        stream.write(json.dumps(line | said) + "\n")


def _row(update: int, done: float, rng: random.Random) -> dict[str, Any]:
    reward = 0.2 + 0.6 * done + 0.04 * rng.random()
    figures = {"reward_mean": reward, "train_accuracy": reward, "reward_std": 0.4, "uniform_group_share": 0.3}
    times = {"wait_s": 2.0, "update_s": 5.0, "sync_s": 0.4, "time_s": 8.0 * update}
    of_tokens = {"completion_tokens": SIZE * GROUPS * TOKENS, "completion_tokens_mean": TOKENS, "truncated_share": 0.01}
    watched = {"entropy": 0.9 - 0.5 * done, "kl_rollout": 1e-3 * rng.random(), "grad_norm": 0.3 + 0.1 * rng.random()}
    return {"update": update, **figures, **times, **of_tokens, **watched, "samples": GROUPS * SIZE, "warnings": []}


def first_paint_ms(file: Path) -> dict[str, float]:
    """Milliseconds from the navigation to the first paint of content, to the curves, and to the list of groups."""
    with open_page("about:blank") as (page, complaints):
        page.goto(file.as_uri(), wait_until="commit")
        page.wait_for_selector("#groups button", timeout=120_000)
        listed = page.evaluate("performance.now()")
        paints = page.evaluate(
            "Object.fromEntries(performance.getEntriesByType('paint').map((each) => [each.name, each.startTime]))"
        )
        assert not complaints, complaints
    return {"first paint": paints["first-contentful-paint"], "groups listed": listed}


def run(num_rollouts: int) -> None:
    """Write the run, export its page with a few groups and with all of them, open each in Chromium."""
    with tempfile.TemporaryDirectory(prefix="rayzero-page-") as scratch:
        folder = Path(scratch)
        directory = write_run(folder / "run", num_rollouts)
        print("| groups in the file | size | written in | first paint | groups listed |\n|---|---|---|---|---|")
        for limit in (20, num_rollouts // SIZE):
            out, began = folder / f"{limit}.html", time.monotonic()
            samples(str(directory.path), folder, Filter(), "newest", limit, "html", out, None)
            written = time.monotonic() - began
            best = min((first_paint_ms(out) for _ in range(3)), key=lambda each: each["first paint"])
            times = " | ".join(f"{best[name]:.0f} ms" for name in ("first paint", "groups listed"))
            print(f"| {limit:,} | {out.stat().st_size / 2**20:.1f} MiB | {written:.1f} s | {times} |", flush=True)
