"""Generated hostile cases: completions, gold answers, specs, data rows and verdicts, the same for the same seed.

Every test that reads what a model or a data row wrote can be fed with them: `hostile_cases` for rewards,
`hostile_verdict` and `hostile_group` for what records, serves or shows the outcome.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.messages import (
    ChatMessage,
    Completion,
    Group,
    Prompt,
    Rollout,
    Verdict,
    VerdictStatus,
    VersionSpan,
)

SURROGATES = ("\ud800", "\udfff", "\udc80", "a\ud83d", "\udca0\ud800")
CONTROLS = ("\x00", "\x1b[2J", "\x1b]0;title\x07", "\r", "\x85", "\u2028", "\u2029", "\u202e", "\ufeff", "\x9b31m")
MARKUP = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</script>",
    "{{7*7}}",
    "${7*7}",
    "[red]",
    "%s%n",
)
NUMBERS = (
    "1e400", "-1e400", "1e-400", "9" * 5000, "0." + "3" * 5000, "1_000", "\u0661\u0662", "\u00b2", "NaN", "Infinity",
    "0x" + "f" * 2000, "9**9**9", "10^{10^{10}}", "1/0", "0/0", "99999!", "-0", "1e1000000000", "\\frac{1}{0}",
)  # fmt: skip
FOOD = (
    "\"\\", "((", "[[", "{{", "\\boxed{", "\\frac{", "\\text{", "^", "\n", " ", "\t", "a ", "1,", "1.", "-", "<think>",
    "</think>", "```", "```python\n", "/*", "//", "'", "$", "\\", "1", "e", ".", "|", "&", "\n\n", "\\left(", "0.",
)  # fmt: skip
"""Repeated, they are what quadratic patterns choke on."""
CODE = (
    "__import__('os').system('id')",
    "open('/etc/passwd').read()", "[x for x in ().__class__.__base__.__subclasses__()]",
    "exec('import os')", "(lambda: 1)()", "eval('1')", "f'{open}'", "breakpoint()", "().__class__", "1 if 1 else 2",
    "globals()", "vars()", "print(1)", "exit()", "entry['answer']", "Symbol('x').func", "sympify('1')", "S('1')",
)  # fmt: skip
PROGRAMS = (
    "raise ValueError('\\ud800')", "def f(*a): return float('nan')", "def f(*a): return [float('inf')] * 3",
    "def f(*a): return {10**5000: 1}", "def f(*a): return 10**6000", "def f(*a): raise StopIteration",
    "def f(*a):\n    x = []\n    x.append(x)\n    return x", "def f(*a): return '\\udfff'", "def f(*a): return 1e400",
    "print('1' * 60000 + 'x')", "def f(*a): return True", "class f: pass", "import sys; sys.exit(0)",
    "import os\nos.write(3, b'\\0\\0\\0\\2{}')", "print(chr(0xd800))", "print('\\x00\\x1b[2J')", "def f(*a): return f",
    "def f(*a):\n    r = []\n    for _ in range(5000): r = [r]\n    return r",
)  # fmt: skip
KINDS = (
    "math", "code", "format", "language", "exact", "choice", "json_schema", "regex", "instructions", "sql",
    "repetition", "reasoning_gym",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HostileCase:
    """One completion, and what a data row holds it against."""

    number: int
    kind: str
    """The reward that it is made for; any other must survive it as well."""
    completion: str
    answer: Any
    prompt_text: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> Prompt:
        """As a data row gives it."""
        return Prompt(
            prompt_id=f"hostile/{self.number}",
            messages=(ChatMessage(role="user", content="?"),),
            answer=self.answer,
            columns=self.columns,
        )


def hostile_cases(number: int, seed: int = 0, *, kinds: tuple[str, ...] = KINDS) -> Iterator[HostileCase]:
    """`number` cases, kinds in turn; a longer run begins with the cases of a shorter one."""
    for at in range(number):
        rng = random.Random(seed * 1_000_003 + at)
        kind = kinds[at % len(kinds)]
        yield HostileCase(
            number=at,
            kind=kind,
            completion=_completion(rng, kind),
            answer=_answer(rng, kind),
            prompt_text=rng.choice(("", "", "<think>", hostile_text(rng))),
            columns=_columns(rng),
        )


def hostile_text(rng: random.Random, max_chars: int = 20_000) -> str:
    """Surrogates, controls, markup, numbers, code, and food for quadratic patterns, a few pieces at a time."""
    makers: tuple[Callable[[], str], ...] = (
        lambda: rng.choice(SURROGATES),
        lambda: rng.choice(CONTROLS),
        lambda: rng.choice(MARKUP),
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(CODE),
        lambda: rng.choice(FOOD) * rng.choice((3, 50, 1000)),
        lambda: "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(20))),
        lambda: str(rng.randrange(-20, 100)),
        lambda: "the answer is " * rng.randrange(3),
    )
    text = "".join(rng.choice(makers)() for _ in range(rng.randrange(1, 5)))
    if rng.random() < 0.002:
        text = rng.choice(FOOD) * (max_chars * 10)
        return text[: max_chars * 10]
    return text[:max_chars]


def hostile_value(rng: random.Random, depth: int = 0) -> Any:
    """A value as JSON readers give it, and worse: NaN and infinities in lists, huge integers, deep nesting."""
    if depth == 0 and rng.random() < 0.02:
        nested: Any = 1
        for _ in range(rng.choice((50, 300, 2000))):
            nested = [nested] if rng.random() < 0.5 else {"a": nested}
        return nested
    leaves: tuple[Callable[[], Any], ...] = (
        lambda: rng.choice((math.nan, math.inf, -math.inf, 1e308, -0.0)),
        lambda: rng.choice((0, 1, -1, 10**400, -(10**5000), 2**63)),
        lambda: rng.choice((None, True, False)),
        lambda: hostile_text(rng, 300),
    )
    if depth > 3 or rng.random() < 0.5:
        return rng.choice(leaves)()
    items = [hostile_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if rng.random() < 0.5:
        return items
    return {hostile_text(rng, 40): item for item in items}


def hostile_verdict(rng: random.Random) -> Verdict:
    """As a reward of another package might give it: any text, any number."""
    status = rng.choice(list(VerdictStatus))
    is_error = status is VerdictStatus.ERROR
    return Verdict(
        reward=math.nan if is_error else rng.choice((0.0, 1.0, -1.5, 1e300)),
        components={hostile_text(rng, 30): rng.choice((0.0, 1.0, math.nan, math.inf)) for _ in range(2)},
        status=status,
        reason=hostile_text(rng, 2000),
        seconds=rng.choice((0.0, 1e-9, 1e9, math.inf)),
        tests=tuple({"status": "fail", "reason": hostile_text(rng, 200), "seconds": 0.1} for _ in range(2)),
        cause=rng.choice(list(ErrorCause)) if is_error else None,
    )


def hostile_group(rng: random.Random, group_id: int, version: int = 0) -> Group:
    """A group of two, with hostile text wherever text may stand."""
    rollouts = tuple(Rollout(completion=completion_of(hostile_text(rng), version), verdict=hostile_verdict(rng))
                     for _ in range(2))  # fmt: skip
    prompt = Prompt(
        prompt_id=hostile_text(rng, 60),
        messages=(ChatMessage(role="user", content=hostile_text(rng, 500)),),
        answer=hostile_value(rng),
        columns={hostile_text(rng, 20): hostile_value(rng)},
    )
    return Group(group_id=group_id, prompt=prompt, prompt_token_ids=np.arange(3, dtype=np.int32), rollouts=rollouts)


def completion_of(text: str, version: int = 0) -> Completion:
    """A completion with this text, of three tokens."""
    return Completion(
        text=text,
        token_ids=np.arange(3, dtype=np.int32),
        rollout_logprobs=np.full(3, -1.0, np.float32),
        version_spans=(VersionSpan(start=0, end=3, policy_version=version),),
        finish_reason="stop",
    )


def _completion(rng: random.Random, kind: str) -> str:
    body = hostile_text(rng)
    if kind == "code":
        body = rng.choice((rng.choice(PROGRAMS), body))
        body = f"```{rng.choice(('python', '', 'cpp', 'java', 'go', 'rust', 'js'))}\n{body}\n```"
    elif kind == "sql":
        body = f"```sql\n{rng.choice(('select 1', 'select ' + body, 'attach x', body))}\n```"
    elif kind == "json_schema":
        body = rng.choice(("[" * 3000, '{"a": NaN}', "1e999", '"\\ud800"', "9" * 6000, body))
    if rng.random() < 0.6:
        body = f"\\boxed{{{body}}}"
    return rng.choice(("", "<think>", f"<think>{hostile_text(rng)}</think>", "<think>1</think>", "</think>")) + body


def _answer(rng: random.Random, kind: str) -> Any:
    if rng.random() < 0.2:
        return hostile_value(rng)
    text = hostile_text(rng, 300)
    plain: dict[str, Callable[[], Any]] = {
        "code": lambda: _spec(rng),
        "choice": lambda: rng.choice(("A", "AC", "B", text)),
        "json_schema": lambda: rng.choice(
            ({"type": "object"}, {"pattern": "(a+)+$"}, {"$ref": "#"}, {"$ref": "http://127.0.0.1:1/"}, True, text)
        ),
        "regex": lambda: rng.choice(("(a+)+$", "(.*)*x", "[", text, "\\ud800")),
        "instructions": lambda: rng.choice(
            ([{"id": "length_constraints:number_words", "num_words": 3, "relation": "at least"}], [{"id": text}], text)
        ),
        "sql": lambda: rng.choice(("select 1", "select " + text, text)),
    }
    return plain.get(kind, lambda: rng.choice(("42", "\\frac{1}{2}", "x^2", "(1,2)", text)))()


def _spec(rng: random.Random) -> dict[str, Any]:
    tests: list[Any] = [
        {"stdin": "1", "expected": rng.choice(("1", "0.5", "x"))},
        {"call": "f", "args": [1], "expected": rng.choice((1, [1.5], {"1": 1}, None, "x"))},
        {"assert": "assert f(1) == 1"},
        {"stdin": hostile_text(rng, 100), "expected": hostile_text(rng, 100)},
        hostile_value(rng),
    ]
    checkers: list[Any] = ["lines", "tokens", "judge", "unordered", {"float_tolerance": 1e-6}]
    checkers += [{"custom": "os:execlp"}, {"custom": "def check(*a): return float(a[1]) == 1"}, hostile_text(rng, 40)]
    return {
        "language": rng.choice(("python", "python", "python", hostile_text(rng, 10))),
        "tests": [rng.choice(tests)],
        "checker": rng.choice(checkers),
        "packages": rng.choice(([], [], ["../../etc"], ["no-such-package"])),
        "time_limit_s": 1.0,
    }


def _columns(rng: random.Random) -> dict[str, Any]:
    columns = {hostile_text(rng, 20): hostile_value(rng) for _ in range(rng.randrange(2))}
    if rng.random() < 0.7:
        answer = rng.choice(("1 2 3", hostile_text(rng, 50)))
        columns["reasoning_gym_task"] = rng.choice(("spiral_matrix", "countdown", "n_queens", hostile_text(rng, 20)))
        columns["reasoning_gym_entry"] = rng.choice(
            (f'{{"answer": "{answer}", "metadata": {{}}}}', hostile_text(rng, 100), '{"answer": "1"}', "[]", "NaN")
        )
    return columns
