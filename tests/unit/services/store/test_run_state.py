"""The run's part of a checkpoint: what is read is what was written, to the bit; what was tampered with runs nothing."""

from __future__ import annotations

import json
import math
import pickle
import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayzero.services.data.stream import MixPart, PromptMix, PromptStream
from rayzero.services.loop.checkpointer import Checkpointer, go_on_from
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.errors import RecipeError, RunDirectoryError
from rayzero.services.schema.messages import Group, Rollout, Verdict, VersionSpan
from rayzero.services.store.checkpoints import MANIFEST, latest_checkpoint, restore_run, seal
from rayzero.services.store.run_state import PackedState, read_state
from tests.fakes import Events, FakePrompts, make_group, make_prompt
from tests.plain_equality import same, unsaid
from tests.unit.services.loop.test_controller import Run
from tests.unit.services.store.test_run_files import SavingLearner

FAR = 2**40


def odd_group(group_id: int) -> Group:
    """Every field set, to what formats stumble over."""
    group = make_group(group_id, rewards=(1.0, math.nan, 0.1))
    first, *rest = group.rollouts
    verdict = replace(
        first.verdict,
        components={"accuracy": 0.1 + 0.2, "format": -0.0, "inf": math.inf},
        reason="half a pair \ud800, U+2028 \u2028, NUL \0",
        tests=({"status": "pass", "seconds": 1e-300, "big": 10**40, "deep": [{"a": None}]},),
        parts={"accuracy": (1.0, 0.1 + 0.2), "format": (0.25, -0.0), "inf": (0.0, math.inf)},
        extra={"custom/seen": [1, None, "\ud800"]},
    )
    completion = replace(
        first.completion,
        rollout_logprobs=np.asarray([-np.inf, -1e-45, -0.1][: first.completion.num_tokens], np.float32),
        token_ids=first.completion.token_ids[:3],
        version_spans=(VersionSpan(start=0, end=1, policy_version=FAR), VersionSpan(start=1, end=3, policy_version=0)),
        text="\ud83d é \n",
        finish_reason="abort",
        routed_experts=np.asarray([[[65535, 0]], [[1, 256]]], np.uint16),
    )
    return replace(
        group,
        rollouts=(Rollout(completion=completion, verdict=verdict, kl_rollout=1e-9), *rest),
        worker="w",
        prompt_routed_experts=np.asarray([[[255, 1]], [[2, 0]], [[3, 4]]], np.uint8),
    )


def state() -> dict[str, Any]:
    return {
        "buffer": {
            "version": 3,
            "next_group_id": 9,
            "num_held": 1,
            "dropped": {"stale": 2},
            "entries": [
                (7, make_prompt(7), 2, odd_group(7)),
                (8, make_prompt(8), 3, None),
                (5, make_prompt(5), 3, make_group(5)),
            ],
        },
        "prompts": {"position": 10},
        "accuracies": {0: 0.25, 3: 0.5},
        "num_tokens": FAR,
        "num_samples": 12,
    }


def test_the_odd_group_says_something_in_every_field_of_a_verdict() -> None:
    assert unsaid(Verdict, (rollout.verdict for rollout in odd_group(1).rollouts)) == []
    assert unsaid(Group, [odd_group(1)]) == []


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    before = state()
    PackedState.of(before).write(tmp_path)
    after = read_state(tmp_path, FakePrompts().find)
    assert same(before, after)
    assert after["buffer"]["entries"][0][3].rollouts[1].verdict.cause is ErrorCause.EXCEPTION
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "run.safetensors"]


def test_a_state_of_before_routing_was_recorded_is_read(tmp_path: Path) -> None:
    before = state()
    before["buffer"]["entries"] = before["buffer"]["entries"][1:]
    packed = PackedState.of(before)
    del packed.arrays["routed_experts"]
    packed.text = packed.text.replace('"routing": [{}], ', "")
    assert "routing" not in packed.text
    packed.write(tmp_path)
    assert same(before, read_state(tmp_path, FakePrompts().find))


async def checkpoint(folder: Path) -> Path:
    """A real one, with whatever the buffer holds."""
    run = Run()
    saver = Checkpointer(folder, SavingLearner(Events()), keep_last=2)
    run.controller.buffer.load_state_dict(state()["buffer"])
    await saver.save(run.controller)
    return folder / "update_000003"


def tampered(path: Path, name: str, content: bytes) -> None:
    """As a hand would that knows the format: the manifest agrees with what it changed."""
    (path / "state" / name).write_bytes(content)
    seal(path, {"update": 3})
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"].pop(MANIFEST, None)
    (path / MANIFEST).write_text(json.dumps(manifest))


class Bomb:
    """Executes code when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def restore(path: Path) -> None:
    controller = Run().controller
    restore_run(path, controller.prompts.find, partial(go_on_from, controller))


async def test_no_file_of_a_checkpoint_runs_code(tmp_path: Path) -> None:
    path, exploded = await checkpoint(tmp_path), tmp_path / "exploded"
    restore(path)
    bomb = pickle.dumps(Bomb(exploded))
    for name in ("run.json", "run.safetensors"):
        whole = (path / "state" / name).read_bytes()
        tampered(path, name, bomb)
        assert latest_checkpoint(tmp_path) == path, "the manifest does not tell"
        with pytest.raises(RunDirectoryError, match="is not what a run has written"):
            restore(path)
        tampered(path, name, whole)
    tampered(path, "run.pkl", bomb)  # read by nothing
    restore(path)
    assert not exploded.exists()


async def test_whatever_is_changed_is_one_sentence_or_data(tmp_path: Path) -> None:
    """A value of another type, a name less or more, a file cut or flipped: 300 times."""
    path, chance = await checkpoint(tmp_path), random.Random(0)
    text, arrays = ((path / "state" / name).read_bytes() for name in ("run.json", "run.safetensors"))
    values: list[Any] = [None, -1, FAR, 1e308, "x", [], {}, [1], {"a": 1}, True, math.nan, [[[]]]]
    refused = 0
    for _ in range(300):
        content = json.loads(text)
        at: Any = content
        while True:
            key = chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if not isinstance(at[key], dict | list) or not at[key] or chance.random() < 0.15:
                break
            at = at[key]
        if chance.random() < 0.3:
            del at[key]
        else:
            at[key] = chance.choice(values)
        (path / "state" / "run.json").write_text(json.dumps(content))
        cut = bytearray(arrays)
        if chance.random() < 0.2:
            cut[chance.randrange(len(cut))] ^= 1 << chance.randrange(8)
        (path / "state" / "run.safetensors").write_bytes(cut[: len(cut) - chance.choice([0, 0, 0, 1, 9])])
        try:
            restore(path)
        except RunDirectoryError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert refused > 150
    (path / "state" / "run.json").write_text("[" * 200_000)
    with pytest.raises(RunDirectoryError):
        restore(path)


@pytest.mark.parametrize("manifest", ["", "[]", "null", '{"files": []}', '{"files": {"x": 1}}', "[" * 100_000])
async def test_a_manifest_that_is_none_is_a_damaged_checkpoint(tmp_path: Path, manifest: str) -> None:
    path = await checkpoint(tmp_path)
    (path / MANIFEST).write_text(manifest)
    assert latest_checkpoint(tmp_path) is None


def test_a_prompt_that_is_gone_from_the_data_is_named(tmp_path: Path) -> None:
    PackedState.of(state()).write(tmp_path)
    stream = PromptStream(PromptMix(parts=(MixPart(weight=1.0, prompts=(make_prompt(7), make_prompt(8))),)), seed=0)
    assert stream.find("train/8") == make_prompt(8)
    with pytest.raises(RecipeError, match=r"the training prompts changed since the checkpoint.*there is no train/5"):
        read_state(tmp_path, stream.find)
