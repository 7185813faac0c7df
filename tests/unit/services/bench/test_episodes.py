"""Episodes and their rows: the same tokens trained, and what each layout feeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rayzero.learner.batch.batching import pack
from rayzero.learner.batch.samples import make_batch
from rayzero.services.bench.episodes import EpisodeMix, as_rows, make_episodes
from rayzero.services.bench.learner import run_episodes
from rayzero.services.schema.messages import Group
from tests.models import build_tiny_model

SMALL = EpisodeMix(num_episodes=2, prompt_tokens=5, num_turns=3, sampled_tokens=2, observed_tokens=3, fork_after=1)


def fed(group: Group, share: bool) -> int:
    microbatches = pack(make_batch([group]).samples, tokens_per_microbatch=10**6, share_prompts=share)
    return sum(microbatch.num_tokens for microbatch in microbatches)


def test_every_layout_trains_the_same_tokens() -> None:
    tree = make_episodes(SMALL, 50)
    rows, turns = as_rows(tree, by_turn=False), as_rows(tree, by_turn=True)
    assert [len(group.rollouts) for group in (tree, rows, turns)] == [2, 4, 10]
    targets = [np.sort(make_batch([group]).samples[0].token_ids).tolist() for group in (tree, rows)]
    assert targets[0] == sorted(targets[1] + make_batch([rows]).samples[1].token_ids.tolist())
    assert tree.num_tokens == rows.num_tokens == turns.num_tokens == 2 * (3 + 2) * 2


def test_what_each_layout_feeds() -> None:
    """Nothing is fed behind the last token that predicts: 11 of the main path's 15, 6 of the branch's 10."""
    tree = make_episodes(SMALL, 50)
    rows, turns = as_rows(tree, by_turn=False), as_rows(tree, by_turn=True)
    assert fed(tree, share=True) == 5 + 2 * (11 + 6)
    assert fed(rows, share=True) == 5 + 2 * (11 + 11)
    assert fed(rows, share=False) == 2 * 2 * (5 + 11)
    assert fed(turns, share=False) == 2 * (5 * 5 + 1 + 6 + 11 + 6 + 11)


def test_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run_episodes(str(build_tiny_model(tmp_path)), dtype="float32", repeats=1, mix=SMALL, as_json=True)
    assert json.loads(capsys.readouterr().out)["row_a_turn"]["fed_tokens"] == figures["row_a_turn"]["fed_tokens"] == 120
    assert figures["tree"]["seconds_of_tree"] == 1.0
    run_episodes(str(tmp_path), dtype="float32", repeats=1, mix=SMALL)
    assert "a row a turn" in capsys.readouterr().out
