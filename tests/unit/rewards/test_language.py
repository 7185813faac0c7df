"""Which words count, for whom; shares counted by hand."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.language import LanguageReward, count_words, thought_of
from rewards.prose import prose
from services.schema.messages import VerdictStatus
from tests.unit.rewards.cases import case


def share(text: str, target: str) -> float:
    value = LanguageReward(target=target).judge(case(text)).value
    assert value is not None
    return value


@pytest.mark.parametrize(
    ("text", "english", "chinese"),
    [
        ("<think>First add the numbers.</think>答案", 1.0, 0.0),
        ("<think>先把数字相加。</think>answer", 0.0, 1.0),
        ("<think>我们 need to 计算 the sum</think>9", 0.5, 0.5),
        ("<think>這是繁體 Chinese</think>", 0.2, 0.8),
        ("<think>Let x = 3, so 2x + ab = cd. 设 x 为 3 cm。</think>", 0.5, 0.5),
        ("<think>三角形ABC中，sin A = 0.5，∠BCD</think>", 0.0, 1.0),
        ("<think>The triangle ABC has a side of length 5 cm.</think>", 1.0, 0.0),
        ("<think>I think a proof is short</think>", 1.0, 0.0),
        ("<think>Ｆｕｌｌ　ｗｉｄｔｈ 全</think>", 2 / 3, 1 / 3),
        ("<think>don't well-known it’s 好</think>", 0.75, 0.25),
        ("<think>これは日本語</think>", 0.0, 0.5),
        ("<think>안녕 hello</think>", 1 / 3, 0.0),
        ("<think>это русский text</think>", 1 / 3, 0.0),
        ("<think>解：$\\text{this is math}$ 完</think>", 0.0, 1.0),
        ("<think>解 \\(a+b\\) \\[many words here\\] \\begin{align}x &= words\\end{align} 完</think>", 0.0, 1.0),
        ("<think>运行\n```python\nprint('hello big world')\n```\n和 `inline code` 完</think>", 0.0, 1.0),
        ("<think>看 https://example.com/some/path?q=words 和 me@example.org 完</think>", 0.0, 1.0),
        ("<think>It costs $5 and later $7 more</think>", 1.0, 0.0),
        ("<think>snake_case x1 2nd 好</think>", 0.0, 1.0),
        ("思考 words</think>answer in English", 1 / 3, 2 / 3),
        ("<think>never closed 思考", 0.5, 0.5),
        ("no tags at all 思", 0.8, 0.2),
        ("<think>a < b words</think> c </think> d", 1.0, 0.0),
        ("<think>He said</think>", 1.0, 0.0),
    ],
)
def test_shares_by_hand(text: str, english: float, chinese: float) -> None:
    assert share(text, "en") == pytest.approx(english)
    assert share(text, "zh") == pytest.approx(chinese)


SCRIPTS = {"ja": "これは日本語", "ko": "안녕", "ru": "это", "ar": "مرحبا", "he": "שלום", "hi": "नमस्ते", "th": "สวัสดี"}


@pytest.mark.parametrize(("target", "text"), [*SCRIPTS.items(), ("el", "καλημέρα")])
def test_other_scripts(target: str, text: str) -> None:
    assert share(f"<think>{text}</think>", target) == 1.0
    assert share(f"<think>{text}</think>", "en") == 0.0


@pytest.mark.parametrize(
    "text",
    ["", "<think></think>words", "<think>2 + 2 = 4</think>", "<think>$x$ `code` 3.5 x y</think>", "<think>!?。</think>",
     "<think>```\nwords that never end"],
)  # fmt: skip
def test_no_prose_is_neither_rewarded_nor_punished_in_full(text: str) -> None:
    score = LanguageReward().judge(case(text))
    assert (score.value, score.status) == (0.5, VerdictStatus.WRONG)
    assert LanguageReward(empty_score=0.25).judge(case(text)).value == 0.25


def test_correct_only_when_every_word_is() -> None:
    assert LanguageReward().judge(case("<think>all right</think>")).status is VerdictStatus.CORRECT
    assert LanguageReward().judge(case("<think>all right 好</think>")).status is VerdictStatus.WRONG


def test_the_target_can_come_from_the_data_row() -> None:
    reward = LanguageReward(target="en", target_column="language")
    assert reward.judge(case("<think>好</think>", columns={"language": "zh-CN"})).value == 1.0
    assert reward.judge(case("<think>好</think>", columns={})).value == 0.0
    unknown = reward.judge(case("<think>好</think>", columns={"language": "Klingon"}))
    assert unknown.is_error and unknown.cause == "bad-prompt"


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("<think>a</think>b", "a"),
        ("a</think>b", "a"),
        ("<think>a</think>b</think>c", "a</think>b"),
        ("x<think>a", "a"),
        ("a", "a"),
        ("</think>b<think>c", "c"),
    ],
)
def test_what_counts_as_the_thought(text: str, thought: str) -> None:
    assert thought_of(text) == thought


@given(st.text(alphabet=st.sampled_from("ab中文 $`\\()[]{}<>/\n1.https:@~"), max_size=200))
def test_prose_never_invents_words_and_never_fails(text: str) -> None:
    assert set(prose(text)) <= set(text) | {" "}
    assert count_words(prose(text)).total() <= len(text)


def test_a_megabyte_of_anything_is_linear() -> None:
    pieces = ("$a ", "\\(", "`", "```", "$x$ ", "\n\n$a ", "\\begin{", "a@", "a.", "https://", "&a", "a-", "1.", "中")
    for piece in pieces:
        times = []
        for size in (15_000, 60_000):
            text = piece * (size // len(piece))
            started = time.process_time()
            share(text, "en")
            times.append(time.process_time() - started)
        assert times[1] < 10 * times[0] + 0.2, f"{piece!r} is not linear: {times}"
