"""Wrong recipes, overrides and data end in exit 0 or 2 and a sentence: never in a traceback."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from rayzero.services.run.plan import check
from rayzero.services.schema.errors import RayzeroError
from tests.mutations import mutated_overrides, mutated_recipe, mutated_rows
from tests.small_recipe import write_model, write_place

QUICK, LONG = 200, 10_000
SEED = int(os.environ.get("RAYZERO_MUTATION_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
LONGEST_S = 20.0
"""Of one check: a value must not make it read or allocate without end."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = write_model(tmp_path_factory.mktemp("model"))
    return write_place(tmp_path_factory.mktemp("place"), model)


@pytest.fixture
def good(place: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(place)
    recipe: dict[str, Any] = yaml.safe_load((place / "mini.yaml").read_text())
    recipe["reward"] = {"rubrics": {"default": {"r": {"kind": "math"}}}}
    recipe["learner"] = {"optimizer": {"learning_rate": 1e-5}, "kl": {"beta": 0.0}}
    return recipe


def outcome_of(file: Path, overrides: list[str]) -> str:
    """`ok`, or what is wrong with how the check ended; a refusal is as it should be."""
    began = time.monotonic()
    try:
        check(file, overrides, as_json=True)
    except RayzeroError as error:
        said = str(error)
        if error.exit_code != 2 or not said.strip():
            return f"exit code {error.exit_code}: {said!r}"
        said.encode()  # a sentence that can be shown
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began
    return "ok" if seconds < LONGEST_S else f"took {seconds:.0f} s"


def try_recipes(good: dict[str, Any], count: int, seed: int) -> list[str]:
    wrong, file = [], Path("mutated.yaml")
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        file.write_text(mutated_recipe(good, chance), encoding="utf-8", errors="surrogatepass")
        overrides = mutated_overrides(chance)
        if (ended := outcome_of(file, overrides)) != "ok":
            wrong.append(f"recipe {number} of seed {seed}, {overrides}: {ended[:500]}")
    return wrong


def try_data(good: dict[str, Any], count: int, seed: int) -> list[str]:
    wrong = []
    Path("data.yaml").write_text(yaml.safe_dump(good))
    for number in range(count):
        chance = random.Random(f"data {seed} {number}")
        kind = chance.choice(("jsonl", "jsonl", "csv", "parquet"))
        Path(f"mutated.{kind}").write_bytes(mutated_rows(chance))
        source = {"kind": kind, "path": f"mutated.{kind}"}
        where = chance.choice(("train", "held_out"))
        if (ended := outcome_of(Path("data.yaml"), [f"data.{where}={json.dumps([source])}"])) != "ok":
            wrong.append(f"data {number} of seed {seed}, {kind}: {ended[:500]}")
    return wrong


def test_two_hundred_wrong_recipes_end_in_a_sentence(good: dict[str, Any]) -> None:
    print(f"RAYZERO_MUTATION_SEED={SEED}")
    assert try_recipes(good, QUICK, SEED) == []


def test_wrong_files_of_prompts_end_in_a_sentence(good: dict[str, Any]) -> None:
    print(f"RAYZERO_MUTATION_SEED={SEED}")
    assert try_data(good, QUICK // 2, SEED) == []


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_thousand_do(good: dict[str, Any]) -> None:
    print(f"RAYZERO_MUTATION_SEED={SEED}")
    assert try_recipes(good, LONG, SEED) + try_data(good, LONG // 10, SEED) == []


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_two_hundred_do_by_the_command(good: dict[str, Any]) -> None:
    print(f"RAYZERO_MUTATION_SEED={SEED}")
    file, wrong = Path("mutated.yaml"), []
    for number in range(200):
        chance = random.Random(f"{SEED} {number}")
        file.write_text(mutated_recipe(good, chance), encoding="utf-8", errors="surrogatepass")
        overrides = [text.replace("\x00", "") for text in mutated_overrides(chance)]
        command = [sys.executable, "-m", "rayzero", "check", str(file), "--", *overrides]
        words = [word.encode(errors="surrogatepass") for word in command]
        done = subprocess.run(words, capture_output=True, check=False, timeout=120)
        if done.returncode not in (0, 2) or b"Traceback" in done.stderr:
            wrong.append(f"recipe {number} of seed {SEED}, {overrides}: {done.returncode} {done.stderr[-500:]!r}")
    assert wrong == []
