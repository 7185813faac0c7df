"""The rollouts' index: pages, orders, filters, files that change, and a hundred thousand rollouts."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.loop.batch_metrics import with_kl
from rayzero.services.observe.browse.rollout_index import Filter, RolloutIndex
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.rollout_file import rollout_lines
from tests.fakes import make_group


def write(folder: Path, name: str, *groups: tuple[int, tuple[float, ...]]) -> None:
    rollouts = folder / "rollouts"
    rollouts.mkdir(exist_ok=True)
    lines = [line for number, rewards in groups for line in rollout_lines(make_group(number, rewards=rewards))]
    append_lines(rollouts / f"{name}.jsonl", lines, replace=name != "dropped")


@pytest.fixture
def index(tmp_path: Path) -> RolloutIndex:
    write(tmp_path, "update_000001", (0, (0.0, 1.0)), (1, (0.0, 0.0)))
    write(tmp_path, "update_000002", (2, (1.0, 1.0)), (3, (0.0, float("nan"))))
    write(tmp_path, "evaluation_000002", (-1, (0.5,)))
    index = RolloutIndex(tmp_path, cache=tmp_path / "cache")
    index.refresh()
    return index


def keys(index: RolloutIndex, wanted: Filter, sort: str = "newest") -> list[str]:
    return [group["key"] for group in index.groups(wanted, sort, 20, 0)[0]]  # type: ignore[arg-type]


def test_groups_come_in_order_and_in_pages(index: RolloutIndex) -> None:
    assert keys(index, Filter(kind="train")) == [
        "update_000002:3",
        "update_000002:2",
        "update_000001:1",
        "update_000001:0",
    ]
    page, total = index.groups(Filter(), "oldest", 2, 1)
    assert [group["key"] for group in page] == ["update_000001:1", "evaluation_000002:-1"] and total == 5
    assert keys(index, Filter(kind="train"), "spread")[0] == "update_000001:0"
    assert keys(index, Filter(kind="train"), "highest")[0] == "update_000002:2"


def test_the_highest_kl_comes_first_and_what_was_not_trained_on_last(tmp_path: Path) -> None:
    groups = with_kl([make_group(number) for number in range(3)], {0: (0.1, math.nan), 1: (0.0, 0.3)})
    (tmp_path / "rollouts").mkdir()
    lines = [line for group in groups for line in rollout_lines(group)]
    append_lines(tmp_path / "rollouts" / "update_000001.jsonl", lines)
    index = RolloutIndex(tmp_path, cache=tmp_path / "cache")
    index.refresh()
    assert keys(index, Filter(), "kl") == ["update_000001:1", "update_000001:0", "update_000001:2"]
    assert [rollout["kl_rollout"] for rollout in index.groups(Filter(), "kl", 20, 0)[0][1]["rollouts"]] == [0.1, None]


def test_filters_find_groups_with_such_a_rollout(index: RolloutIndex) -> None:
    assert keys(index, Filter(status="error")) == ["update_000002:3"]
    assert set(keys(index, Filter(max_reward=0))) == {"update_000001:0", "update_000001:1", "update_000002:3"}
    assert keys(index, Filter(kind="evaluation")) == ["evaluation_000002:-1"]
    assert keys(index, Filter(version=1, min_reward=1.0)) == ["update_000001:0"]
    assert keys(index, Filter(source="'; DROP TABLE rollouts; --")) == []


def test_whole_rollouts_are_read_back(index: RolloutIndex) -> None:
    rows = index.group("update_000001:0")
    assert [row["reward"] for row in rows] == [0.0, 1.0] and rows[0]["completion"] == "42"
    assert index.group("update_000009:0") == []
    assert [row["version"] for row in index.versions_of("train/2")] == [2]


def test_changed_appended_and_removed_files_are_followed(tmp_path: Path, index: RolloutIndex) -> None:
    write(tmp_path, "update_000002", (7, (1.0, 0.0)))
    write(tmp_path, "dropped", (8, (1.0, 1.0)))
    (tmp_path / "rollouts" / "update_000001.jsonl").unlink()
    index.refresh()
    assert keys(index, Filter()) == ["update_000002:7", "evaluation_000002:-1", "dropped:8"]
    write(tmp_path, "dropped", (9, (0.0, 0.0)))
    with (tmp_path / "rollouts" / "dropped.jsonl").open("a") as stream:
        stream.write('{"group_id": 10, "cut')
    index.refresh()
    assert keys(index, Filter(kind="dropped")) == ["dropped:9", "dropped:8"]


def test_a_second_reader_finds_the_index_made(tmp_path: Path, index: RolloutIndex) -> None:
    again = RolloutIndex(tmp_path, cache=tmp_path / "cache")
    assert again.choices()["num_rollouts"] == 9


def test_a_hundred_thousand_rollouts_are_paged_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "rollouts"
    folder.mkdir()
    lines = [json.dumps(line) for line in rollout_lines(make_group(0, rewards=(0.0, 0.25, 0.5, 1.0) * 2))]
    for update in range(1, 126):
        content = [
            line.replace('"group_id": 0', f'"group_id": {update * 100 + g}') for g in range(100) for line in lines
        ]
        (folder / f"update_{update:06d}.jsonl").write_text("\n".join(content) + "\n")
    index = RolloutIndex(tmp_path, cache=tmp_path / "cache")
    index.refresh()
    began = time.monotonic()
    index.refresh()
    page, total = index.groups(Filter(max_reward=0), "spread", 20, 5000)
    assert total == 12_500 and len(page) == 20
    assert index.choices()["num_rollouts"] == 100_000
    assert time.monotonic() - began < 3.0


def test_files_are_looked_at_when_the_folder_changed_and_not_at_every_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "update_000001", (0, (0.0, 1.0)))
    rollouts = tmp_path / "rollouts"
    looks: list[Path] = []

    def counted(folder: Path) -> Any:
        looks.append(folder)
        return scandir(folder)

    scandir = os.scandir
    monkeypatch.setattr("os.scandir", counted)
    index = RolloutIndex(tmp_path, cache=tmp_path / "cache")
    os.utime(rollouts, (1, 1))  # long ago: within a tick of the clock two changes look like one
    for _ in range(5):
        index.refresh()
    assert len(looks) == 1
    write(tmp_path, "dropped", (9, (0.0, 0.0)))
    os.utime(rollouts, (2, 2))
    index.refresh()
    write(tmp_path, "dropped", (8, (0.0, 0.0)))  # grows, and the folder is as it was
    index.refresh()
    assert len(looks) == 2 and {"dropped:8", "dropped:9"} <= set(keys(index, Filter()))
    write(tmp_path, "update_000002", (1, (0.0, 1.0)))
    index.refresh()
    assert len(looks) == 3 and "update_000002:1" in keys(index, Filter())


def test_a_file_that_was_put_anew_with_the_size_and_time_of_the_old_one_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, "update_000001", (4, (0.0, 1.0)))
    file = tmp_path / "rollouts" / "update_000001.jsonl"
    index = RolloutIndex(tmp_path, cache=tmp_path / "cache")
    os.utime(file, (1, 1))
    index.refresh()
    write(tmp_path, "update_000001", (7, (0.0, 1.0)))
    os.utime(file, (1, 1))
    index.refresh()
    assert keys(index, Filter()) == ["update_000001:7"]


@pytest.mark.parametrize(
    "damage",
    [
        b"{}",
        b"17",
        b"\xff",
        b'{"cut',
        b"[" * 100_000,
        b'{"versions": 3, "rollout_logprobs": []}',
        json.dumps({**next(rollout_lines(make_group(5))), "num_tokens": 10**30}).encode(),
        json.dumps({**next(rollout_lines(make_group(5))), "reward": 10**400}).encode(),
    ],
)
def test_a_damaged_line_costs_itself_alone(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "update_000001", (0, (0.0, 1.0)))
    file = tmp_path / "rollouts" / "update_000001.jsonl"
    file.write_bytes(damage + b"\n" + file.read_bytes())
    index = RolloutIndex(tmp_path, cache=tmp_path / "cache")
    index.refresh()
    assert keys(index, Filter()) == ["update_000001:0"] and "line at byte 0 is damaged" in caplog.text


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "update_000001", (0, (0.0, 1.0)))
    (tmp_path / "cache").write_text("a file is in the way")
    index = RolloutIndex(tmp_path, cache=tmp_path / "cache")
    index.refresh()
    assert keys(index, Filter()) == ["update_000001:0"] and "kept in memory" in caplog.text
