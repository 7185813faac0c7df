"""What a recipe asks for that does nothing is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rayzero.services.planning import machine
from rayzero.services.planning.models import BUILT_IN
from rayzero.services.run.notes import notes, slow_here
from rayzero.services.schema.config.recipe import Recipe
from tests.fakes import make_recipe


def changed(**sections: Any) -> Recipe:
    content = make_recipe().model_dump(mode="json")
    for name, values in sections.items():
        content[name] = {**(content[name] or {}), **values}
    return Recipe.model_validate(content)


def cold_start(**optimizer: Any) -> dict[str, Any]:
    source = {"kind": "jsonl", "path": "demonstrations.jsonl"}
    settings = {"source": source, "num_updates": 6, "optimizer": {"learning_rate": 1e-4, **optimizer}}
    return {"learner": {"minibatches": 2}, "cold_start": settings}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({}, ["the policy has not moved when its loss is taken"]),
        ({"learner": {"minibatches": 2}}, []),
        ({"learner": {"inner_epochs": 2, "loss": {"name": "dapo"}}}, []),
        ({"learner": {"correction": {"name": "rollout_as_old"}}}, []),
        ({"learner": {"minibatches": 2, "loss": {"name": "gspo"}}}, ["sequence_truncation weighs"]),
        (
            {"learner": {"minibatches": 2, "loss": {"name": "grpo", "ratio": "sequence"}}},
            ["sequence_truncation weighs"],
        ),
        (
            {"learner": {"minibatches": 2}, "training": {"max_staleness": 1, "on_stale": "drop"}},
            ["mostly those with long completions"],
        ),
        ({"learner": {"minibatches": 2}, "evaluation": {"temperature": 0, "num_completions": 4}}, ["answer 4 times"]),
        (
            {"learner": {"minibatches": 2, "optimizer": {"decay": "cosine"}}, "training": {"num_updates": 9}},
            ["cosine to floor 0 ends at rate 0: update 9 changes nothing"],
        ),
        ({"learner": {"minibatches": 2, "optimizer": {"decay": "cosine", "floor": 0.1}}}, []),
        (
            {"learner": {"minibatches": 2, "optimizer": {"floor": 0.1}}},
            ["floor: 0.1 has no effect with decay: constant"],
        ),
        (
            {"learner": {"minibatches": 2, "optimizer": {"warmup_updates": 9}}, "training": {"num_updates": 9}},
            ["the rate is still climbing at the end"],
        ),
        ({"learner": {"minibatches": 2, "advantage": "component_normalised"}}, ["rubric default has one"]),
        (
            {"learner": {"minibatches": 2, "kl": {"place": "reward", "estimator": "k2"}}},
            ["learner.kl has estimator and place, which do nothing while learner.kl.beta is 0"],
        ),
        ({"learner": {"minibatches": 2, "kl": {"beta": 0.1, "unbiased": True}}}, []),
        (
            {"learner": {"minibatches": 2, "loss": {"name": "reinforce++"}}, "training": {"skip_uniform_groups": True}},
            ["batch_normalised compares with those of the others"],
        ),
        (
            {
                "learner": {"loss": {"name": "custom", "function": "my:loss"}},
                "training": {"skip_uniform_groups": True},
            },
            ["which learner.loss: custom may learn from"],
        ),
        (
            {
                "learner": {"minibatches": 2},
                "rollout": {"canary_every_syncs": 0},
                "training": {"max_staleness": 1},
            },
            ["leaves learner.watch blind"],
        ),
        ({"learner": {"minibatches": 2}, "rollout": {"canary_every_syncs": 0}}, []),
        (
            {"learner": {"minibatches": 2}, "data": {"num_held_out": 5}, "evaluation": {"num_prompts": 8}},
            ["num_prompts: 8 is more than data.num_held_out: 5 holds out: 5 are evaluated"],
        ),
        (cold_start(decay="constant", floor=0.5), ["cold_start.optimizer.floor: 0.5 has no effect with decay"]),
        (cold_start(decay="constant"), []),
        (cold_start(warmup_updates=6), ["cold_start.optimizer.warmup_updates: 6 is not fewer than cold_start.num_upd"]),
        (cold_start(decay="cosine", floor=0), ["cold_start.optimizer.decay: cosine to floor 0 ends at rate 0"]),
    ],
)
def test_said(sections: dict[str, Any], words: list[str]) -> None:
    found = [note for note in notes(changed(**sections)) if "this machine" not in note]
    assert len(found) == len(words)
    for note, word in zip(found, words, strict=True):
        assert word in note


@pytest.mark.parametrize(
    ("rate", "lora", "words"),
    [
        (1e-9, None, ["1e-09 moves next to nothing: for a model of 135 M parameters 2e-05 is usual"]),
        (1e-3, None, ["0.001 may undo what the model has learnt"]),
        (1e-3, {"rank": 8}, []),
        (1e-6, {"rank": 8}, ["for adapters of a model of 135 M parameters 0.0002 is usual"]),
        (1e-6, None, []),
        (3e-4, None, []),
    ],
)
def test_a_rate_far_from_what_is_usual_for_the_size_is_noted(
    rate: float, lora: dict[str, int] | None, words: list[str]
) -> None:
    recipe = changed(learner={"minibatches": 2, "lora": lora, "optimizer": {"learning_rate": rate}})
    found = [note for note in notes(recipe, BUILT_IN["smollm2-135m-instruct"].shape) if "learning_rate" in note]
    assert len(found) == len(words) and all(word in note for note, word in zip(found, words, strict=True))


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"learner": {"kl": {"beta": 0.1, "estimator": "k1"}}}, "k1 has no gradient on average"),
        ({"learner": {"kl": {"beta": 0.1, "unbiased": True, "place": "reward"}}}, "unbiased is for place: loss"),
        ({"learner": {"kl": {"refresh_every_updates": 4}}}, "refresh_every_updates is never read while beta is 0"),
        ({"learner": {"advantage": "none"}}, "advantage: none with kl.beta 0 teaches nothing"),
        ({"learner": {"advantage": "none", "kl": {"beta": 0.1, "place": "reward"}}}, "teaches nothing: set kl.place"),
        (
            {"learner": {"advantage": "component_normalised", "kl": {"beta": 0.1, "place": "reward"}}},
            "kl.beta has no effect: set kl.place: loss",
        ),
        (
            {
                "learner": {"loss": {"name": "dapo", "overlong_tokens": 300}},
                "rollout": {"sampling": {"max_tokens": 200}},
            },
            r"overlong_tokens \(300\) is more than rollout.sampling.max_tokens \(200\)",
        ),
        ({"learner": {"loss": {"name": "dr_grpo", "constant_tokens": 9}, "aggregation": "token_mean"}}, "give one"),
        (
            {
                "learner": {"advantage": "none", "kl": {"beta": 0.1}},
                "training": {"skip_uniform_groups": True},
            },
            "rewards teach nothing and all groups do",
        ),
        ({"learner": {"correction": {"name": "token_truncation", "limit": 0.5}}}, "limit"),
        ({"learner": {"correction": {"name": "sequence_truncation", "limit": 0.9}}}, "limit"),
        ({"learner": {"minibatches": 3}}, r"minibatches \(3\) deals whole groups"),
        ({"learner": {"rejection": [{"name": "token_veto"}]}}, "without an edge nothing is rejected"),
        ({"learner": {"rejection": [{"name": "token_mask", "low": 2, "high": 1}]}}, "else everything is rejected"),
        ({"learner": {"rejection": [{"name": "sequence_mask", "high": 0.5}]}}, "the ratio is 1, and that would be"),
        ({"learner": {"correction": {"name": "icepop", "low": 3, "high": 2}}}, "all of it would be dropped"),
        ({"learner": {"correction": {"name": "geometric_rejection", "high": 0.99}}}, "all of it would be dropped"),
    ],
)
def test_what_contradicts_itself_is_refused(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        changed(**sections)


@pytest.mark.parametrize(
    ("flags", "dtype", "device", "is_said"),
    [
        ("fpu sse avx2", "bfloat16", "cpu", True),
        ("fpu avx512f avx512_bf16", "bfloat16", "cpu", False),
        ("fpu amx_bf16 amx_tile", "bfloat16", "cpu", False),
        ("fpu sse avx2", "float32", "cpu", False),
        ("fpu sse avx2", "bfloat16", "cuda", False),
    ],
)
def test_bfloat16_on_a_cpu_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, dtype: str, device: str, is_said: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    recipe = changed(model={"dtype": dtype}, rollout={"device": device})
    assert any("model.dtype=float32" in note for note in slow_here(recipe)) is is_said
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "nowhere")
    assert not list(slow_here(recipe))
