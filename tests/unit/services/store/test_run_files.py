"""What a run leaves on disk: the directory it takes, its lines, its checkpoints."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import yaml

from rayzero.services.loop.checkpointer import Checkpointer, go_on_from
from rayzero.services.loop.evaluation import Evaluation
from rayzero.services.observe.browse.page import file_page
from rayzero.services.observe.browse.rollout_index import Filter, RolloutIndex
from rayzero.services.observe.recorder import Recorder
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RunDirectoryError, UsageError
from rayzero.services.store.checkpoints import checkpoints_in, find_damage, latest_checkpoint, restore_run, version_of
from rayzero.services.store.json_lines import append_lines, read_lines
from rayzero.services.store.rollout_file import read_groups, rollout_lines
from rayzero.services.store.run_directory import RunDirectory, choose_run_directory, write_json
from tests.fakes import Events, FakeLearner, impossible, make_group, make_recipe
from tests.unit.services.loop.test_controller import Run

LOCKED: list[RunDirectory] = []


@pytest.fixture(autouse=True)
def release_locks() -> Iterator[None]:
    yield
    while LOCKED:
        LOCKED.pop().release()


def prepared(path: Path, **training: object) -> RunDirectory:
    directory = RunDirectory(path)
    directory.prepare(make_recipe(**training))
    LOCKED.append(directory)
    return directory


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    first = prepared(tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="in use by another"):
        RunDirectory(tmp_path / "run").prepare(make_recipe())
    first.release()
    prepared(tmp_path / "run")


def test_the_same_recipe_continues_an_unfinished_run_and_leaves_a_finished_one(tmp_path: Path) -> None:
    recipe = make_recipe()
    directory, resume, _ = choose_run_directory(recipe, tmp_path, None, fresh=False)
    assert (directory.path.name, resume) == ("fake", False)
    prepared(directory.path)
    (directory.checkpoints / "update_000001").mkdir()
    assert choose_run_directory(recipe, tmp_path, None, fresh=False) == (ANY, True, ())
    assert choose_run_directory(recipe, tmp_path, None, fresh=True).directory.path.name == "fake-2"
    write_json(directory.file("summary.json"), {})
    assert choose_run_directory(recipe, tmp_path, None, fresh=False).directory.path.name == "fake-2"


def changed(**sections: Any) -> Recipe:
    """The fake recipe with other values, by section."""
    content = make_recipe().model_dump(mode="json")
    for section, values in sections.items():
        content[section] = {**content[section], **values} if isinstance(values, dict) else values
    return Recipe.model_validate(content)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"training": {"num_updates": 9}}, "training.num_updates was 3 and is 9"),
        ({"description": "x"}, "description was '' and is 'x'"),
        ({"checkpoint": {"keep_last": 5}}, "checkpoint.keep_last was 2 and is 5"),
        ({"deadlines": {"stall_s": 7200.0}}, "deadlines.stall_s was 1800.0 and is 7200.0"),
        ({"reward": {"num_workers": 2, "max_workers": 4}}, "reward.num_workers was 1 and is 2"),
        ({"evaluation": {"every_updates": 1}}, "evaluation.every_updates was 0 and is 1"),
        ({"evaluation": {"num_prompts": 3}}, "evaluation.num_prompts was 2 and is 3"),
        ({"learner": {"watch": {"kl_stop": 0.5}}}, "learner.watch.kl_stop was None and is 0.5"),
        (
            {"learner": {"compute": {"activation_checkpointing": True}}},
            "learner.compute.activation_checkpointing was None and is True",
        ),
        ({"rollout": {"canary_max_difference": 0.5}}, "rollout.canary_max_difference was None and is 0.5"),
        ({"cluster": {"environment_resources": {"x": 1.0}}}, "cluster.environment_resources.x was None and is 1.0"),
    ],
)
def test_what_touches_no_update_is_continued(tmp_path: Path, change: dict[str, Any], note: str) -> None:
    directory = prepared(tmp_path / "fake")
    (directory.checkpoints / "update_000001").mkdir()
    for explicit in (None, directory.path):
        choice = choose_run_directory(changed(**change), tmp_path, explicit, fresh=False)
        assert choice.resume and choice.directory.path == directory.path
        assert f"changed since it began: {note}" in choice.notes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": {"group_size": 4}}, "training.group_size was 2 and is 4"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"evaluation": {"num_prompts": 0}}, "num_prompts was 2 and is 0, and with 0 no prompt is held out of those"),
    ],
)
def test_what_touches_the_mathematics_is_refused_and_never_begun_anew_in_silence(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    directory = prepared(tmp_path / "fake")
    (directory.checkpoints / "update_000001").mkdir()
    recipe = changed(**change)
    with pytest.raises(UsageError, match=rf"{said}.*--fresh to begin a new run in fake-2"):
        choose_run_directory(recipe, tmp_path, None, fresh=False)
    with pytest.raises(UsageError, match=said):
        choose_run_directory(recipe, tmp_path, directory.path, fresh=False)
    assert choose_run_directory(recipe, tmp_path, None, fresh=True).directory.path.name == "fake-2"


def test_more_updates_are_refused_where_the_learning_rate_depends_on_their_number(tmp_path: Path) -> None:
    linear = {"optimizer": {"learning_rate": 1e-5, "decay": "linear"}}
    directory = RunDirectory(tmp_path / "fake")
    directory.prepare(changed(learner=linear))
    LOCKED.append(directory)
    (directory.checkpoints / "update_000001").mkdir()
    with pytest.raises(UsageError, match=r"num_updates was 3 and is 9, and learner.optimizer.decay: linear makes"):
        choose_run_directory(changed(learner=linear, training={"num_updates": 9}), tmp_path, None, fresh=False)


def test_a_finished_run_goes_on_where_it_is_to_end_later(tmp_path: Path) -> None:
    directory = prepared(tmp_path / "fake")
    (directory.checkpoints / "update_000003").mkdir()
    write_json(directory.file("summary.json"), {})
    longer = make_recipe(num_updates=9)
    choice = choose_run_directory(longer, tmp_path, None, fresh=False)
    assert choice.resume and choice.directory.path == directory.path
    with pytest.raises(UsageError, match=r"holds a finished run \(training.num_updates is not raised\)"):
        choose_run_directory(make_recipe(num_updates=2), tmp_path, directory.path, fresh=False)
    directory.release()
    choice.directory.prepare(longer)
    LOCKED.append(choice.directory)
    assert not choice.directory.is_finished()


def test_a_key_that_is_new_in_rayzero_is_no_change(tmp_path: Path) -> None:
    directory = prepared(tmp_path / "fake")
    (directory.checkpoints / "update_000001").mkdir()
    older = yaml.safe_load(directory.file("recipe.yaml").read_text())
    del older["training"]["max_refills"], older["training"]["on_stale"]
    directory.file("recipe.yaml").write_text(yaml.safe_dump(older))
    assert choose_run_directory(make_recipe(), tmp_path, None, fresh=False) == (ANY, True, ())


def test_lines_survive_odd_text_and_a_cut_last_line(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    rows = [{"text": "a\u2028b\n c"}, {"text": "中文"}]
    append_lines(file, rows)
    with file.open("a", encoding="utf-8") as stream:
        stream.write('{"text": "cut')
    assert read_lines(file) == rows


def test_a_full_disk_is_said_at_once() -> None:
    with pytest.raises(RunDirectoryError, match="No space left on device"):
        append_lines(Path("/dev/full"), [{"x": 1}])


def test_groups_read_back_as_the_learner_saw_them(tmp_path: Path) -> None:
    groups = [make_group(3, version=2), make_group(4, rewards=(float("nan"), 1.0))]
    append_lines(tmp_path / "rollouts.jsonl", [line for group in groups for line in rollout_lines(group)])
    again = read_groups(tmp_path / "rollouts.jsonl")
    assert [group.group_id for group in again] == [3, 4]
    for old, new in zip(groups, again, strict=True):
        np.testing.assert_array_equal(old.prompt_token_ids, new.prompt_token_ids)
        for before, after in zip(old.rollouts, new.rollouts, strict=True):
            np.testing.assert_array_equal(before.completion.rollout_logprobs, after.completion.rollout_logprobs)
            assert before.completion.version_spans == after.completion.version_spans
            assert before.verdict.status == after.verdict.status


def test_rolling_back_forgets_what_came_after_a_checkpoint(tmp_path: Path) -> None:
    directory = prepared(tmp_path / "run")
    recorder = Recorder(directory)
    for update in (1, 2, 3):
        recorder.on_update({"update": update}, [make_group(update)])
        recorder.on_ledger("admitted", update, version=update - 1)
        recorder.on_ledger("trained", update, version=update)
    recorder.roll_back(policy_version=2, next_group_id=3)
    assert [row["update"] for row in read_lines(directory.file("metrics.jsonl"))] == [1, 2]
    ledger = [(row["event"], row["group_id"]) for row in read_lines(directory.file("ledger.jsonl"))]
    assert ledger == [("admitted", 1), ("trained", 1), ("admitted", 2), ("trained", 2)]


class SavingLearner(FakeLearner):
    """Writes a file where a model would be."""

    async def save_checkpoint(self, directory: str) -> None:
        Path(directory, "model.safetensors").write_bytes(b"weights" * 1000)


async def saved(tmp_path: Path, versions: list[int], accuracies: dict[int, float]) -> Checkpointer:
    run = Run()
    saver = Checkpointer(tmp_path, SavingLearner(Events()), keep_last=2)
    for version in versions:
        run.controller.buffer.version = version
        run.controller.accuracies = {known: value for known, value in accuracies.items() if known <= version}
        await saver.save(run.controller)
    return saver


async def test_the_last_and_the_best_checkpoints_are_kept(tmp_path: Path) -> None:
    await saved(tmp_path, [1, 2, 3, 4, 5], {1: 0.2, 2: 0.9, 3: 0.5})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["update_000002", "update_000004", "update_000005"]
    assert latest_checkpoint(tmp_path) == tmp_path / "update_000005"
    resumed = Run().controller
    restore_run(tmp_path / "update_000005", resumed.prompts.find, partial(go_on_from, resumed))
    assert resumed.buffer.version == 5


async def test_a_checkpoint_whose_evaluation_goes_on_is_kept_until_its_accuracy_is_known(tmp_path: Path) -> None:
    """Where generation and learning overlap, the save does not wait for the evaluation of its version."""
    run = Run()
    run.controller.accuracies = {2: 0.5}
    saver = Checkpointer(tmp_path, SavingLearner(Events()), keep_last=1)
    for version in (2, 4, 6):
        run.controller.buffer.version, run.controller.measuring = version, 4
        await saver.save(run.controller)
    assert [version_of(path) for path in checkpoints_in(tmp_path)] == [2, 4, 6]
    run.controller.accuracies[4], run.controller.measuring = 0.75, None
    run.controller.buffer.version = 8
    await saver.save(run.controller)
    assert [version_of(path) for path in checkpoints_in(tmp_path)] == [4, 8]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest"])
async def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path: Path, damage: str) -> None:
    await saved(tmp_path, [1, 2], {})
    file = tmp_path / "update_000002" / ("manifest.json" if damage == "manifest" else "model.safetensors")
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:-1] + b"?" if damage == "flip" else content[: len(content) // 2])
    assert find_damage(tmp_path / "update_000002") is not None
    assert latest_checkpoint(tmp_path) == tmp_path / "update_000001"


async def test_a_damaged_checkpoint_that_was_passed_over_pushes_no_whole_one_out(tmp_path: Path) -> None:
    saver = await saved(tmp_path, [1, 2, 4, 5], {})
    for version in (4, 5):
        (tmp_path / f"update_{version:06d}" / "model.safetensors").write_bytes(b"")
    run = Run()  # resumed from 2, since 4 and 5 are damaged
    run.controller.buffer.version = 3
    await saver.save(run.controller)
    assert latest_checkpoint(tmp_path) == tmp_path / "update_000003"


async def test_a_checkpoint_that_cannot_be_written_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = await saved(tmp_path, [1], {})

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", full)
    run = Run()
    run.controller.buffer.version = 2
    with pytest.raises(RunDirectoryError, match="No space left on device"):
        await saver.save(run.controller)
    assert [path.name for path in tmp_path.iterdir()] == ["update_000001"]
    assert find_damage(tmp_path / "update_000001") is None


async def test_what_the_learner_cannot_write_is_said_with_the_checkpoints_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = await saved(tmp_path, [1], {})

    async def full(directory: str) -> None:
        raise RunDirectoryError("I/O error (its disk has 0 MiB left)")

    monkeypatch.setattr(saver.learner, "save_checkpoint", full)
    run = Run()
    run.controller.buffer.version = 2
    with pytest.raises(RunDirectoryError, match=r"update_000002 cannot be written: .*0 MiB left.*is intact"):
        await saver.save(run.controller)
    assert [path.name for path in tmp_path.iterdir()] == ["update_000001"]


def test_a_rollout_with_an_infinite_log_probability_is_recorded_and_read_back(tmp_path: Path) -> None:
    """A batch that is made again from its file must meet the infinite ratio that it had, not a NaN."""
    file = tmp_path / "update_000001.jsonl"
    append_lines(file, list(rollout_lines(impossible(make_group(3)))))
    assert read_lines(file)[0]["rollout_logprobs"] == [-0.5, None, -0.5]
    assert np.array_equal(
        read_groups(file)[0].rollouts[0].completion.rollout_logprobs, np.array([-0.5, -np.inf, -0.5], dtype=np.float32)
    )


def test_what_is_not_finite_is_null_at_any_depth(tmp_path: Path) -> None:
    nan, infinity = float("nan"), float("inf")
    append_lines(tmp_path / "lines", [{"a": nan, "b": [1.0, -infinity, {"c": (infinity, "x")}]}])
    assert read_lines(tmp_path / "lines") == [{"a": None, "b": [1.0, None, {"c": [None, "x"]}]}]


async def test_a_checkpoint_of_another_schema_is_refused_with_the_way_on(tmp_path: Path) -> None:
    await saved(tmp_path, [1], {})
    manifest = tmp_path / "update_000001" / "manifest.json"
    content = json.loads(manifest.read_text())
    assert content.pop("schema") == 3
    manifest.write_text(json.dumps(content))  # as versions wrote it that had no schema yet
    with pytest.raises(
        RunDirectoryError, match=r"has schema 1, .* from schema 3 alone: .* model\.path=\S*update_000001"
    ):
        latest_checkpoint(tmp_path)


def test_a_full_disk_costs_no_line_that_was_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ledger.jsonl"
    append_lines(file, [{"n": 1}])
    write, calls = os.write, iter([5])

    def fills_up(descriptor: int, content: bytes) -> int:
        if (room := next(calls, None)) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content[:room])

    with monkeypatch.context() as full:
        full.setattr("os.write", fills_up)
        with pytest.raises(RunDirectoryError, match=r"ledger\.jsonl cannot be written: No space left on device"):
            append_lines(file, [{"n": 2}])
    append_lines(file, [{"n": 3}])
    assert read_lines(file) == [{"n": 1}, {"n": 3}]


def test_a_line_that_a_kill_cut_takes_no_other_with_it(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"n": 1}\n{"n": 2, "te')
    append_lines(file, [{"n": 3}])
    assert read_lines(file) == [{"n": 1}, {"n": 3}]


DAMAGED = [b'{"update": 2', b"\xff\xfe\x00", b"17", b"[" * 100_000, b'{"update": ' + b"9" * 5000 + b"}"]


@pytest.mark.parametrize("damage", DAMAGED, ids=["cut", "no text", "number", "deep", "long"])
def test_a_damaged_line_is_passed_over_by_readers_and_by_a_roll_back(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    directory = prepared(tmp_path / "run")
    file = directory.file("metrics.jsonl")
    file.write_bytes(b'{"update": 1}\n' + damage + b'\n{"update": 3}\n{"update": 4}\n')
    assert [row["update"] for row in read_lines(file)] == [1, 3, 4]
    assert "metrics.jsonl:2 is" in caplog.text
    Recorder(directory).roll_back(3, 0)
    assert [row["update"] for row in read_lines(file)] == [1, 3]


HOSTILE_VALUES: dict[str, Any] = {
    "surrogate": "\ud800 </script>\x1b[2J",
    "long integer": 10**5000,
    "infinity": [float("inf"), [float("nan")]],
    "objects": {"when": datetime(2026, 11, 30), "much": Decimal("1e9999"), "raw": b"\xff", 3: np.int64(4), "set": {1}},
}


@pytest.mark.parametrize("name", HOSTILE_VALUES)
async def test_nothing_that_a_group_holds_stops_the_recorder(tmp_path: Path, name: str) -> None:
    value = HOSTILE_VALUES[name]
    group = make_group(1)
    verdict = replace(
        group.rollouts[0].verdict, reason="\ud800", components={"accuracy": value}, tests=({"status": value},)
    )
    completion = replace(group.rollouts[0].completion, text="\ud800\x00\x1b]0;x\x07")
    rollouts = (replace(group.rollouts[0], verdict=verdict, completion=completion, kl_rollout=float("inf")),)
    group = replace(group, rollouts=rollouts, prompt=replace(group.prompt, answer=value, source="\udfff"))
    directory = prepared(tmp_path / "run")
    recorder = Recorder(directory)
    recorder.on_update({"update": 1, "loss": value, "warnings": ["\ud800"]}, [group])
    recorder.on_drop(group, DropReason.FAILED)
    recorder.on_ledger("dropped", 1, detail="\ud800", value=value)
    recorder.on_evaluation(
        Evaluation(
            policy_version=1,
            accuracy=float("nan"),
            reward_mean=float("inf"),
            completion_tokens_mean=0.0,
            truncated_share=0.0,
            num_errors=1,
            groups=(group,),
        )
    )
    assert len(read_groups(directory.rollouts / "update_000001.jsonl")) == 1
    index = RolloutIndex(directory.path, cache=tmp_path / "cache")
    index.refresh()
    json.dumps([index.groups(Filter(), "newest", 9, 0), list(index.rollouts(Filter(), 9, 0))], allow_nan=False).encode()
    assert index.choices()["num_rollouts"] == 3
    file_page({"groups": list(index.rollouts(Filter(), 9, 0)), "value": value}).encode()


def test_checkpoints_are_in_order_beyond_six_digits(tmp_path: Path) -> None:
    for number in ("999999", "1000000", "000007"):
        (tmp_path / f"update_{number}").mkdir()
    (tmp_path / "update_mine").mkdir()
    assert [path.name for path in checkpoints_in(tmp_path)] == ["update_000007", "update_999999", "update_1000000"]
