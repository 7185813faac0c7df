"""Both images, built for CPUs by the compose file on a base that is made here: what each must do alone, then a run on
the cluster of containers that they make. Not tried by this: the Dockerfile's own base, CUDA, Docker itself."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers import Compose
from tests.images import Built, built_images
from tests.system import needs

TRAIN, REWARD = "rayzero/train:0.2.0", "rayzero/reward:0.2.0"
RECIPE = "deploy/recipes/tiny_addition.yaml"
SMALL = (
    "model.dtype=float32",
    "cold_start.num_updates=20",
    "cold_start.source.arguments.num_prompts=960",
    "training.num_updates=1",
    "training.groups_per_update=2",
    "training.group_size=4",
    "training.max_staleness=0",
    "evaluation.num_prompts=8",
    "rollout.max_num_seqs=32",
)
ANSWERS = [
    {"id": "right", "completion": r"so \boxed{\frac{1}{2}}", "answer": "0.5"},
    {"id": "wrong", "completion": r"so \boxed{3}", "answer": "0.5"},
]
DOUBLE_IN_CPP = "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << n * 2; }"
TESTS = [{"stdin": "4\n", "expected": "8\n"}]
PROGRAMS = [
    {"id": "right", "code": "print(int(input()) * 2)", "language": "python", "tests": TESTS},
    {"id": "wrong", "code": "print(int(input()) * 3)", "language": "python", "tests": TESTS},
    {"id": "compiled", "code": DOUBLE_IN_CPP, "language": "cpp", "tests": TESTS},
]
WHICH = (
    "import asyncio\nfrom rayzero.rewards.sandbox.client import Sandbox, SandboxConfig\n"
    "async def ask(): found = Sandbox(SandboxConfig()); print(await found.start()); await found.close()\n"
    "asyncio.run(ask())"
)
"""Prints the sandbox's backend: `rayzero sandbox doctor` says it, too, and lets a fork bomb loose for it."""
JOIN_S, TRAIN_S = 400.0, 900.0

pytestmark = [
    pytest.mark.long,
    needs("podman", "runc", "iptables", "podman_compose", "debootstrap"),
    pytest.mark.timeout(4800),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    with built_images(tmp_path_factory.mktemp("images")) as (found, built):
        print(figures(built))
        yield found


def figures(built: dict[str, Built]) -> str:
    return "; ".join(f"{name}: {one.seconds:.0f} s, {one.size_bytes / 1e9:.2f} GB" for name, one in built.items())


def alone(images: Compose, image: str, *command: str, options: tuple[str, ...] = (), text: str = "") -> str:
    """What it prints in a container of its own, without a network, as the image's user."""
    run = ("podman", "run", "--rm", "--interactive", "--network", "none", "--shm-size", "1g", *options, image)
    done = images.run(*run, *command, text=text, deadline_s=TRAIN_S)
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def as_reward_workers() -> tuple[str, ...]:
    """The options that the compose file gives the containers in which programs of a model run."""
    service = yaml.safe_load(Path("docker-compose.yml").read_text(encoding="utf-8"))["services"]["reward-worker"]
    options = [*(("--cap-drop", name) for name in service["cap_drop"]), ("--read-only",)]
    options += [("--security-opt", name) for name in service["security_opt"]]
    options += [("--tmpfs", mount) for mount in service["tmpfs"]]
    return tuple(word for option in options for word in option)


def verdicts(images: Compose, reward: str, cases: list[dict[str, Any]], *options: str) -> dict[str, str]:
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    command = ("rayzero", "grade", "--reward", reward, "--in", "-")
    answer = alone(images, REWARD, *command, options=options, text=lines)
    found = [json.loads(line) for line in answer.splitlines()]
    return {verdict["id"]: verdict["status"] for verdict in found}


@pytest.mark.parametrize("image", [TRAIN, REWARD])
def test_an_image_has_the_command_and_its_version_and_no_root(images: Compose, image: str) -> None:
    assert alone(images, image, "id", "--user").strip() == "1000"
    assert alone(images, image, "rayzero", "--version").strip() == "0.2.0"
    assert alone(images, image, "sh", "-c", "touch /runs/a /models/a ~/a && ! touch /opt/rayzero/a 2>&1")


def test_the_reward_image_grades_without_torch(images: Compose) -> None:
    packages = alone(images, REWARD, "pip", "list", "--format", "freeze")
    assert "ray==" in packages and not re.search(r"^(torch|vllm|transformers)", packages, re.MULTILINE)
    assert verdicts(images, "math", ANSWERS) == {"right": "correct", "wrong": "wrong"}


@pytest.mark.parametrize(
    ("options", "backend"), [((), "landlock"), (as_reward_workers(), "bwrap")], ids=["plain", "as-composed"]
)
def test_programs_are_isolated_within_the_image(images: Compose, options: tuple[str, ...], backend: str) -> None:
    """Plain, an engine masks /proc, and bubblewrap gives way to Landlock; with the compose file's options it need not,
    also where the numbers of processes are small."""
    wanted = {"right": "correct", "wrong": "wrong", "compiled": "correct"}
    assert verdicts(images, "code", PROGRAMS, *options) == wanted
    assert alone(images, REWARD, "python", "-c", WHICH, options=options).strip() == backend


def test_the_train_image_checks_a_recipe_and_trains(images: Compose) -> None:
    assert alone(images, TRAIN, "rayzero", "check", "deploy/recipes/demo.yaml")
    alone(images, TRAIN, "rayzero", "train", RECIPE, *SMALL, "--runs", "/runs")


def test_a_run_on_the_containers_of_the_compose_file(images: Compose) -> None:
    """As deploy/README.md begins it, with the placement that is committed."""
    placement = Path("deploy/docker/placement.txt").read_text(encoding="utf-8").splitlines()
    changes = [line for line in placement if not line.startswith("#")]
    images.compose("up", "-d", "ray-head", "learner", "rollout-worker", "reward-worker")
    nodes = "import ray; ray.init(address='auto', log_to_driver=False); print(len(ray.nodes()))"
    deadline = time.monotonic() + JOIN_S
    while images.inside("ray-head", "python", "-c", nodes).stdout.split()[-1:] != ["4"]:
        assert time.monotonic() < deadline, images.run("podman", "ps", "--all").stdout
        time.sleep(2.0)
    command = ("rayzero", "submit", RECIPE, *SMALL, *changes, "--runs", "/runs", "--head", "--wait")
    done = images.inside("ray-head", *command, deadline_s=TRAIN_S)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    listed = images.inside("ray-head", "rayzero", "runs", "ls", "--runs", "/runs", "--json")
    (run,) = json.loads(listed.stdout)
    assert run["update"] == 1, listed.stdout
