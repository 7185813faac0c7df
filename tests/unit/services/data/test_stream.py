from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from rayzero.services.data.stream import MixPart, PromptMix, PromptStream
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import ChatMessage, Prompt


def prompt(name: str, text: str | None = None) -> Prompt:
    return Prompt(prompt_id=name, messages=(ChatMessage(role="user", content=text or name),), answer="1")


def mix(*sizes: int, weights: tuple[float, ...] = ()) -> PromptMix:
    parts = [
        MixPart(weight=weights[index] if weights else 1.0, prompts=tuple(prompt(f"{index}/{n}") for n in range(size)))
        for index, size in enumerate(sizes)
    ]
    return PromptMix(parts=tuple(parts))


class TestStream:
    def test_an_epoch_gives_every_prompt_once_and_the_next_in_another_order(self) -> None:
        stream = PromptStream(mix(50), seed=3)
        first, second = ([stream.next().prompt_id for _ in range(50)] for _ in range(2))
        assert sorted(first) == sorted(second) == sorted(f"0/{n}" for n in range(50))
        assert first != second

    def test_the_seed_decides_the_order(self) -> None:
        def head(seed: int) -> list[str]:
            stream = PromptStream(mix(50), seed=seed)
            return [stream.next().prompt_id for _ in range(10)]

        assert head(1) == head(1) != head(2)

    def test_without_shuffle_prompts_come_in_order(self) -> None:
        stream = PromptStream(mix(3), seed=3, shuffle=False)
        assert [stream.next().prompt_id for _ in range(4)] == ["0/0", "0/1", "0/2", "0/0"]

    def test_sources_take_turns_by_weight(self) -> None:
        stream = PromptStream(mix(10, 1000, weights=(3, 1)), seed=0)
        for count in range(1, 400):
            stream.next()
            given = stream.state_dict()["given"]
            assert abs(given[0] - 0.75 * count) < 1 and abs(given[1] - 0.25 * count) < 1

    def test_a_resumed_stream_goes_on_as_the_old_one_would_have(self) -> None:
        data = mix(7, 5, weights=(1, 2.5))
        whole = PromptStream(data, seed=9)
        expected = [whole.next().prompt_id for _ in range(100)]
        for cut in (0, 1, 33, 99):
            first = PromptStream(data, seed=9)
            head = [first.next().prompt_id for _ in range(cut)]
            resumed = PromptStream(data, seed=9)
            resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
            assert head + [resumed.next().prompt_id for _ in range(100 - cut)] == expected

    def test_a_cursor_of_other_data_or_another_seed_is_refused(self) -> None:
        state = PromptStream(mix(5), seed=1).state_dict()
        with pytest.raises(RecipeError, match="changed since the checkpoint"):
            PromptStream(mix(6), seed=1).load_state_dict(state)
        with pytest.raises(RecipeError, match="seed 1, not 2"):
            PromptStream(mix(5), seed=2).load_state_dict(state)

    @pytest.mark.parametrize("change", [{"answer": "other"}, {"source": "other"}, {"columns": {"level": 2}}])
    def test_a_cursor_of_the_same_questions_with_other_answers_is_refused(self, change: dict[str, Any]) -> None:
        state = PromptStream(mix(5), seed=1).state_dict()
        (part,) = mix(5).parts
        others = MixPart(weight=1.0, prompts=(replace(part.prompts[0], **change), *list(part.prompts)[1:]))
        with pytest.raises(RecipeError, match="changed since the checkpoint"):
            PromptStream(PromptMix(parts=(others,)), seed=1).load_state_dict(state)

    def test_a_prompt_is_found_by_its_id(self) -> None:
        stream = PromptStream(mix(7, 5), seed=1)
        assert [stream.find(f"1/{number}").prompt_id for number in range(5)] == [f"1/{number}" for number in range(5)]
        for unknown in ("1/5", "2/0", "1/x", "1"):
            with pytest.raises(RecipeError, match=f"there is no {unknown}"):
                stream.find(unknown)
