import time

import pytest

from rayzero.rewards.code.program import NoProgramError, defines, extract


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


PROGRAM = "```python\ndef twice(x):\n    return 2 * x\n```\n"


@pytest.mark.parametrize(
    "after",
    [
        "```\n8\n```",
        "```text\ntwice(4)\n```",
        "```bash\npython main.py\n```",
        "```python\nprint(twice(4))\n```",
        "```python\n>>> twice(4)\n8\n```",
        "```cpp\nint twice(int x) { return 2 * x; }\n```",
    ],
)
def test_a_block_behind_the_program_is_no_program(after: str) -> None:
    assert extract(PROGRAM + after, names=["twice"]) == "def twice(x):\n    return 2 * x\n"


@pytest.mark.parametrize(
    "after", ["```\n8\n```", "```\nHello, World\n```", "```sh\necho 4\n```", "```python\nprint(8)\n```"]
)
def test_without_names_it_is_the_last_that_reads_its_input(after: str) -> None:
    assert extract("```python\nprint(2 * int(input()))\n```\n" + after, reads=True) == "print(2 * int(input()))\n"


def test_the_last_of_two_that_define_it() -> None:
    assert "3 * x" in extract(PROGRAM + PROGRAM.replace("2 *", "3 *"), names=["twice"])


def test_an_indented_fence() -> None:
    text = "1. so:\n    ```python\n    def twice(x):\n        return 2 * x\n    ```\n"
    assert extract(text, names=["twice"]) == "def twice(x):\n    return 2 * x\n"


def test_a_fence_within_a_docstring_closes_nothing() -> None:
    text = '```python\ndef f():\n    """\n    ```\n    """\n```\n'
    assert extract(text) == 'def f():\n    """\n    ```\n    """\n'


@pytest.mark.parametrize("text", ["<think>\n" + PROGRAM, "<think>\n" + PROGRAM + "but", " <think>" + PROGRAM])
def test_an_open_thought_holds_no_program(text: str) -> None:
    with pytest.raises(NoProgramError, match="never ends"):
        extract(text)


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("cpp", "int twice(int x) {"),
        ("cpp", "vector<int> twice(vector<int>& x) const {"),
        ("java", "public static int twice(int x) {"),
        ("go", "func twice(x int) int {"),
        ("rust", "pub fn twice(x: i32) -> i32 {"),
        ("javascript", "var twice = function(x) {"),
        ("javascript", "const twice = (x) => 2 * x"),
        ("python", "    def twice(self, x):"),
        ("python", "twice = lambda x: 2 * x"),
        ("python", "from math import gcd as twice"),
    ],
)
def test_definitions_of_each_language(family: str, text: str) -> None:
    assert defines(text, "twice", family)
    assert not defines("print(twice(4))", "twice", family)


def test_forms_that_repeat_take_linear_time() -> None:
    started = time.process_time()
    for language in ("python", "cpp", "javascript", "go", "rust"):
        for text in ("\n" * 200_000, "twice(" * 50_000, "int twice(" * 20_000, "a " * 100_000, " " * 200_000):
            extract("```\n" + text + "\n```\n```\nx\n```", language, names=["twice"], reads=True)
    assert time.process_time() - started < 10
