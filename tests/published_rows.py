"""Rows in the schemas in which data sets are published, made here: sums and doubles in each of their forms."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def _asked(text: str) -> list[Row]:
    return [{"content": text, "role": "user"}]


def verl(n: int) -> Row:
    question = f"Ann has {n} apples and buys {n + 3}. How many has she?"
    asks = ' Let\'s think step by step and output the final answer after "####".'
    return {
        "data_source": "openai/gsm8k",
        "prompt": _asked(question + asks),
        "ability": "math",
        "reward_model": {"ground_truth": str(2 * n + 3), "style": "rule"},
        "extra_info": {
            "answer": f"She has {n} + {n + 3} = {2 * n + 3}.\n#### {2 * n + 3}",
            "index": n,
            "question": question,
            "split": "train",
        },
    }


def dapo(n: int) -> Row:
    asks = "Solve the problem step by step. The last line of your response should be of the form Answer: $Answer.\n\n"
    return {
        "data_source": "math_dapo",
        "prompt": _asked(f"{asks}Find {n}^2."),
        "ability": "MATH",
        "reward_model": {"ground_truth": str(n * n), "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": f"9a9b6eb4-{n}"},
    }


def prime(n: int) -> Row:
    is_code = n % 2 == 0
    tests = {"inputs": [f"{n} {k}\n" for k in range(3)], "outputs": [f"{n + k}\n" for k in range(3)]}
    return {
        "data_source": "codecontests" if is_code else "numina_olympiads",
        "prompt": [
            {"content": "When tackling complex reasoning tasks, …", "role": "system"},
            {"content": f"Add {n} to a number.", "role": "user"},
        ],
        "ability": "code" if is_code else "math",
        "reward_model": {"ground_truth": json.dumps(tests) if is_code else rf"\frac{{{n}}}{{2}}", "style": "rule"},
        "extra_info": {"index": n, "split": "train"},
    }


def open_r1(n: int) -> Row:
    program = f"a, b = map(int, input().split())\nprint(a + b + {n})"
    return {
        "source": "apps",
        "task_type": "verifiable_code",
        "in_source_id": str(n),
        "prompt": f"Read two numbers and print their sum, plus {n}.",
        "gold_standard_solution": f"Here it is:\n```python\n{program}\n```",
        "verification_info": {
            "language": "python",
            "test_cases": [
                {"fn_name": None, "input": f"{k} 2\n", "output": f"{k + 2 + n}\n", "type": "stdin_stdout"}
                for k in range(3)
            ],
        },
        "metadata": {"difficulty": "interview"},
        "problem_id": f"vfc_{n}",
    }


def livecodebench(n: int) -> Row:
    is_call = n % 2 == 0
    kind = "functional" if is_call else "stdin"
    start = "class Solution:\n    def total(self, nums: List[int], k: int) -> int:\n        "
    cases = [(f"[{n}, {k}]\n{k}", str(n + 2 * k)) if is_call else (f"{n} {k}\n", f"{n + k}\n") for k in range(5)]
    tests = [{"input": given, "output": wanted, "testtype": kind} for given, wanted in cases]
    return {
        "question_title": f"Sum {n}",
        "question_content": f"Sum the numbers, question {n}.",
        "platform": "leetcode" if is_call else "atcoder",
        "question_id": f"abc{n}",
        "contest_id": "abc301",
        "contest_date": "2023-05-13T00:00:00",
        "starter_code": start if is_call else "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(tests[:2]),
        "private_test_cases": packed(tests[2:]),
        "metadata": json.dumps({"func_name": "total"} if is_call else {}),
    }


def packed(tests: Any) -> str:
    """As LiveCodeBench packs its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def apps(n: int) -> Row:
    is_call = n % 3 == 0
    tests: Row = (
        {"fn_name": "add", "inputs": [[n, 1], [n, 2]], "outputs": [[n + 1], [n + 2]]}
        if is_call
        else {"inputs": [f"{n}\n", "5\n"], "outputs": [f"{2 * n}\n", "10\n"]}
    )
    program = "def add(a, b):\n    return a + b" if is_call else "print(2 * int(input()))"
    return {
        "problem_id": n,
        "question": f"Problem {n}: {'add two numbers' if is_call else 'print the double of a number'}.",
        "solutions": json.dumps([program]),
        "input_output": json.dumps(tests),
        "difficulty": "introductory",
        "url": "https://example.org",
        "starter_code": "def add(a, b):\n\t" if is_call else "",
    }


def taco(n: int) -> Row:
    rest = {name: value for name, value in apps(n).items() if name != "problem_id"}
    return rest | {
        "raw_tags": "['Math']", "name": None, "source": "codeforces", "tags": "['Mathematics']", "skill_types": "[]",
        "Expected Auxiliary Space": None, "time_limit": "2.0 seconds", "date": "2021-01-01", "picture_num": "0",
        "memory_limit": "256.0 megabytes", "Expected Time Complexity": None,
    }  # fmt: skip


def code_contests(n: int) -> Row:
    return {
        "name": f"1_{n}",
        "description": f"Print the double of a number. {n}",
        "public_tests": {"input": ["1\n"], "output": ["2\n"]},
        "private_tests": {"input": [f"{n}\n"], "output": [f"{2 * n}\n"]},
        "generated_tests": {"input": ["7\n", "8\n"], "output": ["14\n", "16\n"]},
        "source": 2,
        "difficulty": 7,
        "solutions": {"language": [2, 3], "solution": ["int main() {}", "print(2 * int(input()))"]},
        "incorrect_solutions": {"language": [3], "solution": ["print(0)"]},
        "time_limit": {"seconds": 3, "nanos": 500_000_000},
        "memory_limit_bytes": 256_000_000,
        "input_file": "",
        "output_file": "",
    }


def leetcode_dataset(n: int) -> Row:
    return {
        "task_id": f"add-{n}",
        "question_id": n,
        "difficulty": "Easy",
        "tags": ["Math"],
        "problem_description": f"Return the sum of nums, plus {n}.",
        "starter_code": "class Solution:\n    def total(self, nums: List[int]) -> int:\n        ",
        "estimated_date": "2024-08-04",
        "prompt": "import math\nfrom typing import *\nfrom collections import *\n",
        "completion": f"class Solution:\n    def total(self, nums: List[int]) -> int:\n        return {n} + sum(nums)",
        "entry_point": "Solution().total",
        "test": f"def check(candidate):\n    assert candidate(nums = [1, 2]) == {3 + n}\n"
        f"    assert candidate(nums = []) == {n}\n",
        "input_output": [{"input": "nums = [1,2]", "output": str(3 + n)}],
        "query": f"You are an expert Python programmer. … Return the sum of nums, plus {n}.",
        "response": "…",
    }


def kodcode(n: int) -> Row:
    return {
        "version": "v1.0",
        "style": "instruct",
        "subset": "Prefill",
        "question_id": f"Prefill_{n}_I",
        "question": f"Write a function that adds {n} to a number.",
        "solution": f"def add_{n}(x):\n    return x + {n}",
        "test": f"from solution import add_{n}\n\ndef test_small():\n    assert add_{n}(1) == {n + 1}\n\n"
        f"def test_negative():\n    assert add_{n}(-{n}) == 0\n",
        "test_info": [
            {
                "docstring": f"Adds {n}.",
                "function_declaration": f"def add_{n}(x):",
                "function_name": f"add_{n}",
                "parameter_list": "(x)",
            }
        ],
        "gpt_pass_sequence": [1, 1, 0],
        "gpt_pass_trial_num": 2,
        "gpt_difficulty": "easy",
        "gpt_pass_percentage": 0.67,
        "metadata": {"original_instruction": "…", "prompt_id": str(n), "row_id": n, "seed_ids": "[1]"},
        "conversations": [{"from": "human", "value": "…"}],
    }


def acecoder(n: int) -> Row:
    program = f"def add_{n}(x):\n    return x + {n}"
    return {
        "id": f"oss_{n}",
        "source": "oss",
        "question": f"Write add_{n}, which adds {n} to a number.",
        "test_cases": [f"assert add_{n}({k}) == {k + n}" for k in range(4)],
        "inferences": [
            {"model_name": "a", "pass_rate": 0.25, "inference_id": 0, "completion": "```python\npass\n```"},
            {"model_name": "b", "pass_rate": 1.0, "inference_id": 1, "completion": f"So:\n```python\n{program}\n```"},
        ],
        "context_messages": [_asked("…")],
    }


def acecode_v2(n: int) -> Row:
    """AceCoder's second release: no programs of models, and the tests have another name."""
    return {
        "id": f"evol_{n}",
        "source": "evol",
        "question": f"Write add_{n}, which adds {n} to a number.",
        "tests": [f"assert add_{n}({k}) == {k + n}" for k in range(4)],
    }


def mbpp(n: int) -> Row:
    return {
        "task_id": n,
        "text": f"Write a function to add {n} to a number.",
        "code": f"def add_{n}(x):\r\n  return x + {n}",
        "test_list": [f"assert add_{n}(1) == {n + 1}", f"assert add_{n}(0) == {n}"],
        "test_setup_code": "",
        "challenge_test_list": [],
    }


def open_instruct(n: int) -> Row:
    truth: Any
    if n % 3 == 0:
        truth, name = str(n + 1), "gsm8k"
    elif n % 3 == 1:
        truth, name = json.dumps([f"assert add({n}, 1) == {n + 1}"]), "code"
    else:
        arguments = {"N": 3, "quantifier": "at least", "keyword_list": None, "end_phrase": None}
        truth, name = json.dumps({"func_name": "verify_sentence_constraint", **arguments}), "ifeval"
    return {
        "messages": _asked(f"Question {n}: what comes after {n}?"),
        "ground_truth": truth,
        "dataset": name,
        "constraint_type": "None",
        "constraint": "None",
    }


ROWS: dict[str, Callable[[int], Row]] = {
    make.__name__: make
    for make in (
        verl, prime, dapo, open_r1, livecodebench, apps, taco, code_contests, leetcode_dataset, kodcode, acecoder, mbpp,
        open_instruct,
    )
}  # fmt: skip


def rows_of(name: str, count: int = 24) -> list[Row]:
    """So many rows in a published schema."""
    return [ROWS[name](n) for n in range(1, count + 1)]
