"""Two parts of a completion become one, and a group that is given up is not carried on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rayzero.rollout_workers.continuation import carry_on, joined, seed_after
from rayzero.rollout_workers.running_requests import RunningRequests
from rayzero.services.schema.messages import Completion, FinishReason, VersionSpan
from tests.models import character_tokenizer

TOKENIZER = character_tokenizer()


def part(text: str, version: int, finish_reason: FinishReason = "abort") -> Completion:
    token_ids = np.asarray(TOKENIZER.encode(text), dtype=np.int32)
    return Completion(
        text=text,
        token_ids=token_ids,
        rollout_logprobs=np.full(len(token_ids), -float(version + 1), dtype=np.float32),
        version_spans=(VersionSpan(start=0, end=len(token_ids), policy_version=version),),
        finish_reason=finish_reason,
    )


def test_tokens_follow_each_other_and_keep_their_versions_and_log_probabilities() -> None:
    whole = joined(part("12", 3), part("456", 4, "stop"), TOKENIZER)
    assert (whole.text, whole.finish_reason) == ("12456", "stop")
    assert whole.rollout_logprobs.tolist() == [-4.0, -4.0, -5.0, -5.0, -5.0]
    assert whole.version_spans == (
        VersionSpan(start=0, end=2, policy_version=3),
        VersionSpan(start=2, end=5, policy_version=4),
    )


def test_an_empty_part_leaves_no_span() -> None:
    assert joined(part("", 3), part("7", 4, "stop"), TOKENIZER).oldest_version == 4
    kept = joined(part("7", 3), part("", 4, "length"), TOKENIZER)
    assert (kept.newest_version, kept.finish_reason) == (3, "length")


async def test_each_completion_is_carried_on_to_its_end_however_often_it_is_cut_off() -> None:
    asked: list[tuple[int, str]] = []

    async def resume(index: int, made: Completion) -> Completion | None:
        asked.append((index, made.text))
        return part("9", 1 + made.num_tokens, "stop" if made.num_tokens == 3 else "abort")

    made = await carry_on([part("1", 0, "stop"), part("12", 0)], resume, TOKENIZER)
    assert [completion.text for completion in made] == ["1", "1299"]
    assert asked == [(1, "12"), (1, "129")]
    assert [span.policy_version for span in made[1].version_spans] == [0, 3, 4]


async def test_a_group_that_is_not_wanted_any_more_is_left_as_it_is() -> None:
    async def resume(index: int, made: Completion) -> None:
        return None

    (made,) = await carry_on([part("12", 0)], resume, TOKENIZER)
    assert (made.text, made.finish_reason) == ("12", "abort")


def test_no_two_parts_are_sampled_with_one_seed() -> None:
    seeds = [seed_after(5, index, num_tokens) for index in range(8) for num_tokens in (0, 1, 2, 90)]
    assert len(set(seeds)) == len(seeds) and seed_after(None, 0, 3) is None


def test_what_runs_is_known_by_its_group_until_it_ends() -> None:
    requests = RunningRequests()
    assert requests.give_up(7) == [] and not requests.is_given_up(7)
    with requests.group(7), requests.request(7) as first:
        with requests.request(7) as second:
            assert requests.all() == sorted([first, second]) and first != second
            assert requests.give_up(7) == sorted([first, second])
        assert requests.is_given_up(7) and requests.all() == [first]
    assert not requests.is_given_up(7) and requests.all() == []


def test_routing_of_the_first_part_stays_and_that_of_the_second_follows() -> None:
    prompt = np.asarray([9, 9], np.uint8)

    def routed(made: Completion, before: list[int], salt: int) -> Completion:
        tokens = np.concatenate([prompt, np.asarray(before, np.uint8), made.token_ids.astype(np.uint8)])
        return replace(made, routed_experts=(tokens[:-1] + np.uint8(salt))[:, None, None])

    first = part("12", 3)
    one, two = first.token_ids.tolist()
    second = part("45", 4, "stop")
    whole = joined(routed(first, [], 0), routed(second, [one, two], 100), TOKENIZER).routed_experts
    assert whole is not None
    assert whole.ravel().tolist() == [9, 9, one, two + 100, int(second.token_ids[0]) + 100]
