"""The format policy, case by case, and that it stays linear."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayzero.rewards.base import Case
from rayzero.rewards.kinds.format import FormatReward, format_fault
from rayzero.services.schema.messages import ChatMessage, Prompt, VerdictStatus

GOOD = [
    "<think>t</think>a",
    " \n\t<think>\nt\n</think>\n\na\n",
    "<think>我想</think>答案",
    "<think>t</think><answer>a</answer>",
    "<think>a < b > c </thinking> <thin></think>\\boxed{1}",
    "<think><THINK></think>a",
    "<think>t</think>a</answer>",
    "\u3000<think>t</think>a",
]
BAD = [
    "",
    " ",
    "a",
    "<think>t</think>",
    "<think>t</think> \n",
    "<think></think>a",
    "<think> \n\t</think>a",
    "<think>\u200b\ufeff\u2060</think>a",
    "<think>\0</think>a",
    "<think>t</think>\0",
    "<think>t</think>\u3164",
    "<think>\u034f</think>a",
    "<think>t</think>\ufe0f\U000e0100",
    "<think>t</think>\u17b4\u180b",
    "<think>\ud800</think>a",
    "<think>t</think>\uffff\u2065",
    "<think>t</think>\u00a0\u3000",
    "Sure! <think>t</think>a",
    "\0<think>t</think>a",
    "\ufeff<think>t</think>a",
    "t</think>a",
    "<think>t",
    "</think>t<think>a",
    "</think><think>t</think>a",
    "<think>t</think>a</think>",
    "<think>t</think></think>a",
    "<think><think>t</think>a",
    "<think><think>t</think></think>a",
    "<think>t</think>a<think>",
    "<think>t</think>a<think>u</think>b",
    "<THINK>t</THINK>a",
    "<Think>t</think>a",
    "<think>t</THINK>a",
    "< think>t</ think>a",
    "<think >t</think >a",
    "&lt;think&gt;t&lt;/think&gt;a",
    "\uff1cthink\uff1et\uff1c/think\uff1ea",
    "<think>t<\u200b/think>a",
    "<think>t</think><answer></answer>",
    "<think>t</think>so <answer> \n</answer>",
    "<think>t</think><answer>a</answer><answer>\u200b</answer>",
]
PREFILLED_GOOD = ["t</think>a", "\nt\n</think>\na", "t</think>a<answer>b</answer>", "<THINK>t</think>a"]
PREFILLED_BAD = [
    "",
    "<think>t</think>a",
    "t<think></think>a",
    "t</think>a<think>",
    "</think>a",
    " </think>a",
    "t</think>",
    "t</think> ",
    "t",
    "t</think>a</think>b",
    "t</THINK>a",
]
TAGGED_GOOD = ["<think>t</think><answer>a</answer>", "<think>t</think>\n<answer> a </answer>\n"]
TAGGED_BAD = [
    "<think>t</think>a",
    "<think>t</think><answer>a",
    "<think>t</think>a</answer>",
    "<think>t</think><answer></answer>",
    "<think>t</think><answer> </answer>",
    "<think>t</think>so <answer>a</answer>",
    "<think>t</think><answer>a</answer>.",
    "<think>t</think><answer>a</answer><answer>b</answer>",
    "<think>t</think></answer>a<answer>",
    "<think><answer>t</answer></think><answer>a</answer>",
    "<think><answer>t</think>a</answer>",
]


@pytest.mark.parametrize("text", GOOD)
def test_one_thought_then_an_answer_is_right(text: str) -> None:
    assert format_fault(text) == ""


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_wrong_and_says_what(text: str) -> None:
    assert format_fault(text)


@pytest.mark.parametrize("text", PREFILLED_GOOD)
def test_after_a_prompt_that_opened_the_thought_only_the_close_is_due(text: str) -> None:
    assert format_fault(text, prefilled=True) == ""


@pytest.mark.parametrize("text", PREFILLED_BAD)
def test_after_a_prompt_that_opened_the_thought_anything_else_is_wrong(text: str) -> None:
    assert format_fault(text, prefilled=True)


@pytest.mark.parametrize("text", TAGGED_GOOD)
def test_answer_tags_where_asked_for(text: str) -> None:
    assert format_fault(text, answer_tags=True) == ""


@pytest.mark.parametrize("text", TAGGED_BAD)
def test_missing_or_misplaced_answer_tags_are_wrong_where_asked_for(text: str) -> None:
    assert format_fault(text, answer_tags=True)


@given(st.lists(st.sampled_from(["<think>", "</think>", " ", "\n", "a", "b", "<", "think>"]), max_size=9))
def test_agrees_with_an_obvious_reference(pieces: list[str]) -> None:
    text = "".join(pieces)
    obvious = re.fullmatch(r"\s*<think>(.*\S.*)</think>(.*\S.*)", text, re.DOTALL)
    expected = obvious is not None and text.count("<think>") == 1 and text.count("</think>") == 1
    assert (format_fault(text) == "") is expected


def test_a_megabyte_of_tags_takes_no_time() -> None:
    started = time.perf_counter()
    for piece in ("<think>", "</think>", "<answer>", "<think>a</think>", " ", "\u200b"):
        format_fault(piece * (10**6 // len(piece)), answer_tags=True)
    assert time.perf_counter() - started < 2.0


@pytest.mark.parametrize(("prompt_text", "text"), [("Q <think>\n", "t</think>a"), ("Q", "<think>t</think>a")])
def test_the_reward_looks_at_how_the_prompt_ended(prompt_text: str, text: str) -> None:
    prompt = Prompt(prompt_id="1", messages=(ChatMessage(role="user", content="Q"),), answer=None)
    score = FormatReward().judge(Case(prompt=prompt, text=text, prompt_text=prompt_text))
    assert (score.value, score.status) == (1.0, VerdictStatus.CORRECT)
    wrong = FormatReward().judge(Case(prompt=prompt, text=text, prompt_text=prompt_text + "x <think>y"))
    assert wrong.value == (0.0 if prompt_text != "Q" else 1.0)
