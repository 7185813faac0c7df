"""The compose file under podman: tokens, networks, users, resources and scaling of real containers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.containers import Compose, containers
from tests.system import needs

START_S = 240.0
NODES = (
    "import ray; ray.init(address='auto', log_to_driver=False); print('NODES', __import__('json').dumps(ray.nodes()))"
)
SCRAPED = "import urllib.request as u; print(u.urlopen('http://prometheus:9090/api/v1/query?query=up').read().decode())"
NO_WAY_OUT = "print(any(line.split()[1] == '00000000' for line in open('/proc/net/route')))"

pytestmark = [needs("podman", "runc", "iptables", "podman_compose", "prometheus"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    with containers(tmp_path_factory.mktemp("compose")) as found:
        found.compose("up", "-d", "ray-head", "reward-worker", "prometheus")
        found.compose("up", "-d", "--scale", "rollout-worker=2", "rollout-worker")
        yield found


def resources(cluster: Compose) -> list[str]:
    """The named resource of every living node."""
    answer = cluster.inside("ray-head", "python", "-c", NODES)
    line = next((line for line in answer.stdout.splitlines() if line.startswith("NODES")), "NODES []")
    names = ("head", "learner", "rollout", "reward")
    living = [node["Resources"] for node in json.loads(line.removeprefix("NODES")) if node["Alive"]]
    return sorted(name for node in living for name in names if name in node)


def test_every_service_joins_the_cluster_with_its_resource(cluster: Compose) -> None:
    wanted = ["head", "reward", "rollout", "rollout"]
    deadline = time.monotonic() + START_S
    while (found := resources(cluster)) != wanted:
        logs = [cluster.run("podman", "logs", f"rayzero_{name}_1") for name in ("ray-head", "reward-worker")]
        assert time.monotonic() < deadline, (found, [log.stdout[-1500:] + log.stderr[-1500:] for log in logs])
        time.sleep(2.0)


def test_reward_workers_can_write_and_reach_nothing(cluster: Compose) -> None:
    assert cluster.inside("reward-worker", "id", "--user").stdout.strip() == "1000"
    assert cluster.inside("reward-worker", "touch", "/opt/x").returncode != 0
    assert cluster.inside("reward-worker", "grep", "CapEff", "/proc/1/status").stdout.split()[1] == "0" * 16
    assert cluster.inside("reward-worker", "python", "-c", NO_WAY_OUT).stdout.strip() == "False"
    for service in ("reward-worker", "rollout-worker"):
        assert cluster.inside(service, "printenv", "RAYZERO_API_TOKEN").returncode != 0
    assert cluster.inside("ray-head", "touch", "/runs/of-the-head").returncode == 0
    assert cluster.inside("reward-worker", "ls", "/runs").stdout == ""
    assert cluster.inside("reward-worker", "touch", "/runs/a.log").returncode == 0


def test_the_doctor_finds_the_nodes_well_and_prometheus_scrapes_them(cluster: Compose) -> None:
    rayzero = ("python", "-m", "rayzero")
    answer = cluster.inside("ray-head", *rayzero, "doctor", "--address", "auto", "--runs", "/runs", "--json")
    findings = json.loads(answer.stdout)
    assert [finding for finding in findings if finding["level"] == "fail"] == [], answer.stderr
    deadline = time.monotonic() + START_S
    while True:
        found = json.loads(cluster.inside("ray-head", "python", "-c", SCRAPED).stdout)["data"]["result"]
        scraped = [series["value"][1] for series in found if series["metric"]["job"] == "ray"]
        if len(scraped) >= 4 and set(scraped) == {"1"}:
            return
        assert time.monotonic() < deadline, found
        time.sleep(2.0)
