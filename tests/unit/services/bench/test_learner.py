"""The learner's bench on a tiny model: its figures are there, and count what they say they count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rayzero.services.bench import length_mix, limits
from rayzero.services.bench.learner import run
from rayzero.services.bench.length_mix import LengthMix, make_groups, num_real_tokens
from tests.models import build_tiny_model


def test_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    mix = LengthMix("tiny", 2, 4, (3, 5), 4.0, 0.5, 9)
    monkeypatch.setitem(length_mix.MIXES, "tiny", mix)
    monkeypatch.setitem(limits._SIZES, "cpu", 128)  # bf16 products take minutes on CPUs without AMX
    figures = run(str(build_tiny_model(tmp_path)), mix="tiny", dtype="float32", repeats=1, as_json=True)
    assert json.loads(capsys.readouterr().out)["learner"]["trained_tokens"] == figures["learner"]["trained_tokens"]
    assert figures["packed"]["fed_tokens"] > figures["learner"]["fed_tokens"] > figures["half_neutral"]["fed_tokens"]
    assert figures["learner"]["trained_tokens_per_s"] > 0
    assert figures["learner"]["share_of_gemm_peak"] > 0
    run(str(tmp_path), mix="tiny", dtype="float32", repeats=1)
    assert "prompts shared" in capsys.readouterr().out


def test_the_mix_is_fixed_and_counted() -> None:
    mix = length_mix.MIXES["ragged"]
    groups, again = make_groups(mix, 100), make_groups(mix, 100)
    assert [g.prompt_token_ids.tolist() for g in groups] == [g.prompt_token_ids.tolist() for g in again]
    assert num_real_tokens(groups) == sum(8 * len(g.prompt_token_ids) + g.num_tokens for g in groups)
    lengths = [rollout.completion.num_tokens for g in groups for rollout in g.rollouts]
    assert len(lengths) == 64 and min(lengths) >= 2 and max(lengths) <= 192
    neutral = make_groups(mix, 100, neutral_share=0.5)
    assert sum(len({r.verdict.reward for r in g.rollouts}) == 1 for g in neutral) == 4


def test_the_demos_prompts_begin_alike_as_in_its_run() -> None:
    mix = length_mix.MIXES["demo"]
    prompts = [group.prompt_token_ids for group in make_groups(mix, 1000)]
    assert len({tuple(prompt[:29]) for prompt in prompts}) == 1 and len({prompt[29] for prompt in prompts}) > 1
    assert "prompts 83–84 (29 in common)" in str(mix)
