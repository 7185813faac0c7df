import time

import pytest

from rewards.code.program import NoProgramError, extract


def test_the_last_block_behind_the_last_think_counts() -> None:
    text = "<think>```python\nprint(0)\n```</think>\nFirst\n```python\nprint(1)\n```\nor\n```py\nprint(2)\n```\nDone."
    assert extract(text) == "print(2)\n"


def test_without_think_tags_all_is_answer() -> None:
    assert extract("```\nx = 1\n\ny = 2\n```") == "x = 1\n\ny = 2\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("print(1)", "no fenced block"),
        ("", "no fenced block"),
        ("```python\nprint(1)\n", "not closed"),
        ("```python\nprint(1)\n```\n```python\nprint(2)", "not closed"),
        ("```python\nprint(1)\n```</think>", "no fenced block"),
        ("`print(1)`", "no fenced block"),
    ],
)
def test_no_program(text: str, reason: str) -> None:
    with pytest.raises(NoProgramError, match=reason):
        extract(text)


def test_a_longer_fence_holds_a_shorter_one() -> None:
    assert extract('````python\ns = """\n```\n"""\n````\n') == 's = """\n```\n"""\n'


def test_tildes_and_carriage_returns() -> None:
    assert extract("~~~js\r\na\r\n~~~\r\n") == "a\n"


def test_backticks_within_a_line_open_nothing() -> None:
    assert extract("```py\na\n```\nuse ```x``` here\n") == "a\n"


def test_linear_time() -> None:
    started = time.monotonic()
    with pytest.raises(NoProgramError):
        extract("`" * 300_000 + "\n" + "``` ```\n" * 100_000)
    assert time.monotonic() - started < 5
