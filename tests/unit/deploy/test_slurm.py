"""The Slurm script, with Slurm's programs replaced by ones that note what they are asked: its recipe can be placed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from rayzero.services.fleet.gpu_bundles import ENGINE, LEARNER, Node, bundles_of, fit
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.errors import ActorStartError

SCRIPT = Path("deploy/slurm/rayzero.sbatch")
RECIPE = "deploy/recipes/qwen_0.6b_node.yaml"
NUM_NODES = 3
STUBS = {
    "scontrol": 'printf "%s\\n" n0 n1 n2',
    "sleep": ":",
    # Asked for a node's address it answers; asked for a Ray node it notes it, in a file of its own, and ends.
    "srun": 'case "$*" in *hostname*) echo "$HEAD_IP" ;; '
    '*) printf "%s\\n" "$@" >"$NOTES.$$.part"; mv "$NOTES.$$.part" "$NOTES.$$.node" ;; esac',
    "python": 'printf "%s\\n" "$@" >"$NOTES.train"',
}


class Job:
    """What the script did on three nodes."""

    def __init__(self, folder: Path, head_ip: str = "10.0.0.1", **environment: str) -> None:
        for name, line in STUBS.items():
            (folder / name).write_text(f"#!{shutil.which('bash')}\n{line}\n")
            (folder / name).chmod(0o755)
        self.notes = folder / "notes"
        variables = {
            "PATH": f"{folder}:{os.environ['PATH']}", "NOTES": str(self.notes), "HEAD_IP": head_ip,
            "SLURM_JOB_NODELIST": "n[0-2]", "SLURM_JOB_ID": "7", "RAYZERO_PYTHON": str(folder / "python"),
        }  # fmt: skip
        command = [str(shutil.which("bash")), str(SCRIPT), RECIPE, "seed=3"]
        subprocess.run(command, env=variables | environment, check=True, timeout=60)
        # The script does not wait for the Ray nodes that it started in the background.
        give_up = time.monotonic() + 30
        while len(self.started()) < NUM_NODES:
            assert time.monotonic() < give_up, "not every node was started"
            time.sleep(0.01)
        self.train = Path(f"{self.notes}.train").read_text().splitlines()

    def started(self) -> list[Path]:
        """What each Ray node was started with."""
        return sorted(self.notes.parent.glob(f"{self.notes.name}.*.node"))

    def nodes(self, num_gpus: int) -> dict[str, tuple[Node, list[str]]]:
        """The Ray nodes it starts, if each has so many GPUs, with their command lines."""
        found = {}
        for file in self.started():
            words = file.read_text().splitlines()
            name = words[words.index("--nodelist") + 1]
            resources = json.loads(words[words.index("--resources") + 1])
            found[name] = (Node(name=name, num_gpus=num_gpus, num_cpus=64, resources=resources), words)
        return found

    def place(self, num_gpus: int, *changes: str) -> tuple[str, ...]:
        """Where its recipe's actors would lie."""
        overrides = [word for word in self.train if "=" in word]
        recipe = load_recipe(RECIPE, [*overrides, *changes])
        nodes = [node for node, _ in self.nodes(num_gpus).values()]
        return fit(nodes, bundles_of(recipe, (LEARNER, ENGINE), num_gpus))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(tmp_path_factory.mktemp("job"))


def test_every_node_joins_the_first(job: Job) -> None:
    nodes = job.nodes(8)
    assert sorted(nodes) == ["n0", "n1", "n2"]
    assert "--head" in nodes["n0"][1]
    for name in ("n1", "n2"):
        words = nodes[name][1]
        assert words[words.index("--address") + 1] == "10.0.0.1:6379"
    assert job.train[:5] == ["-m", "rayzero", "train", RECIPE, "seed=3"]
    assert "cluster.address=10.0.0.1:6379" in job.train


def test_a_learner_that_fills_the_first_node_is_placed_there(job: Job) -> None:
    learner, *engines = job.place(8, "cluster.learner_gpus=8", "rollout.num_workers=16", "rollout.max_workers=16")
    assert learner == "n0" and set(engines) == {"n1", "n2"}
    assert job.place(8, "cluster.learner_gpus=1")[0] == "n0"


def test_a_learner_of_two_nodes_needs_two_marks(job: Job, tmp_path: Path) -> None:
    two_nodes = ("cluster.learner_gpus=16", "rollout.num_workers=8", "rollout.max_workers=8")
    with pytest.raises(ActorStartError, match=r"the run needs 16 GPUs on nodes with learner 1, and they have 8"):
        job.place(8, *two_nodes)
    placed = Job(tmp_path, RAYZERO_LEARNER_NODES="2").place(8, *two_nodes)
    assert placed[:2] == ("n0", "n1") and set(placed[2:]) == {"n2"}


def test_a_head_with_an_ipv6_address(tmp_path: Path) -> None:
    job = Job(tmp_path, head_ip="fd00::2")
    head, other = job.nodes(8)["n0"][1], job.nodes(8)["n1"][1]
    assert head[head.index("--node-ip-address") + 1] == "fd00::2"
    assert other[other.index("--address") + 1] == "[fd00::2]:6379"
    assert "cluster.address=[fd00::2]:6379" in job.train
