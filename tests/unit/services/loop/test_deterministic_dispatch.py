"""Which worker gets which group of a batch: by position alone."""

from __future__ import annotations

from rayzero.services.loop.deterministic_dispatch import assign
from rayzero.services.schema.messages import GroupRequest, Sampling
from tests.fakes import make_prompt

SAMPLING = Sampling(num_completions=2, max_tokens=8, temperature=1.0, seed=0)


def requests(count: int) -> list[GroupRequest]:
    return [GroupRequest(group_id=index, prompt=make_prompt(index), sampling=SAMPLING) for index in range(count)]


def test_groups_go_to_the_workers_in_turn_and_each_worker_knows_the_size_of_its_part() -> None:
    dealt = assign(requests(5), ["a", "b"], "groups 0 to 4")
    assert [one.worker for one in dealt] == ["a", "b", "a", "b", "a"]
    assert [one.request.group_id for one in dealt] == [0, 1, 2, 3, 4]
    batches = [one.request.batch for one in dealt]
    assert [batch.size for batch in batches if batch is not None] == [3, 2, 3, 2, 3]


def test_a_worker_s_part_has_one_name_that_no_other_part_has() -> None:
    names = {one.worker: set[str]() for one in assign(requests(6), ["a", "b", "c"], "x")}
    for label in ("groups 0 to 5", "groups 6 to 11"):
        for one in assign(requests(6), ["a", "b", "c"], label):
            assert one.request.batch is not None
            names[one.worker].add(one.request.batch.batch_id)
    assert all(len(found) == 2 for found in names.values())
    assert len(set.union(*names.values())) == 6


def test_fewer_groups_than_workers_leave_some_idle() -> None:
    assert [one.worker for one in assign(requests(1), ["a", "b"], "x")] == ["a"]
    assert assign([], ["a"], "x") == []
