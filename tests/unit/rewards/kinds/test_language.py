"""Which words count, for whom; shares counted by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayzero.rewards.kinds.language import LanguageReward, count_languages, thought_of
from rayzero.rewards.kinds.prose import prose
from rayzero.services.schema.messages import VerdictStatus
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


_HAN = "首先我们把所有的数加起来，然后除以个数，得到平均值。"
_KANA = "まず、全ての数を足します。次に個数で割ります。"
_FRENCH = "Nous cherchons la somme de ces nombres, donc nous les ajoutons."
_GERMAN = "Wir suchen die Summe dieser Zahlen und addieren sie."
_SPANISH = "Buscamos la suma de estos números y los sumamos."


@pytest.mark.parametrize(
    ("text", "target", "least", "most"),
    [
        (_HAN, "ja", 0, 0),
        (_HAN, "zh", 1, 1),
        (_KANA, "ja", 1, 1),
        (_KANA + "答：五個。", "ja", 1, 1),
        (_KANA + _HAN, "ja", 0.3, 0.6),
        (_HAN + "答えは五です。", "ja", 0.1, 0.4),
        (_FRENCH, "en", 0, 0),
        (_FRENCH, "fr", 1, 1),
        (_GERMAN, "en", 0, 0),
        (_GERMAN, "de", 1, 1),
        (_SPANISH, "en", 0, 0),
        (_SPANISH, "es", 1, 1),
        (_FRENCH, "es", 0, 0.1),
        (_SPANISH, "fr", 0, 0.1),
        ("Calcoliamo la somma di questi numeri.", "en", 0, 0),
        ("Calculamos a soma destes números, então temos o resultado.", "en", 0, 0),
        ("Alors x vaut 5.", "en", 0, 0),
        ("Das Ergebnis ist 5.", "en", 0, 0),
        ("El resultado es 5.", "en", 0, 0),
        ("La réponse est 5.", "en", 0, 0),
        ("Therefore x equals 5.", "fr", 0, 0),
        ("We need the sum. " + _FRENCH, "en", 0.2, 0.5),
        ("By de Moivre's theorem we get the result. À la carte is fine.", "en", 1, 1),
        ("Roll a die and compute the average.", "en", 1, 1),
        ("The Schrödinger equation and the Poincaré disc, a naïve approach.", "en", 1, 1),
        ("First, find the value of a. No solution is as valid as one per se.", "en", 1, 1),
        ("El Niño is a climate pattern. Los Angeles is in California.", "en", 1, 1),
        ("Compute", "en", 1, 1),
        ("Compute", "fr", 1, 1),
    ],
)
def test_languages_of_one_script_are_told_apart_by_sentences(text: str, target: str, least: float, most: float) -> None:
    assert least <= share(f"<think>{text}</think>5", target) <= most


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


def test_every_labelled_thought_is_in_its_language_or_not() -> None:
    corpus = Path(__file__).parents[3] / "corpus" / "language.jsonl"
    lines = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    wrong = [line for line in lines if (share(line["completion"], line["target"]) >= 0.5) != line["is_target"]]
    assert len(lines) >= 30 and wrong == []


@given(st.text(alphabet=st.sampled_from("ab中文 $`\\()[]{}<>/\n1.https:@~"), max_size=200))
def test_prose_never_invents_words_and_never_fails(text: str) -> None:
    assert set(prose(text)) <= set(text) | {" "}
    assert count_languages(prose(text), "en").total() <= len(text)


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
