"""The compose file: valid, locked down where model-written code runs, and what it mounts is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from rayzero.rewards.sandbox.refusal import CONTAINER_OPTIONS
from rayzero.services.schema.config.loader import load_recipe

FILE = Path("docker-compose.yml")


class WithTags(yaml.SafeLoader):
    """Compose's own tags in the override."""


WithTags.add_multi_constructor("!", lambda loader, suffix, node: None)


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return content


def test_the_file_passes_the_published_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_image_is_pinned_and_no_service_is_root() -> None:
    for name, service in compose()["services"].items():
        assert re.search(r":v?\d+\.\d+\.\d+}?$", service["image"]), name
        assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"], name
        if name not in ("prometheus", "grafana"):  # their images have users of their own
            assert service["user"] == "1000:1000", name


def test_commands_are_lists_whose_resources_are_json() -> None:
    for name, service in compose()["services"].items():
        if "command" in service:
            assert isinstance(service["command"], list), f"{name}: quotes are lost in a string"
        for word in service.get("command", []):
            if word.startswith("--resources="):
                assert json.loads(word.removeprefix("--resources="))


def test_reward_workers_have_no_way_out_and_no_secrets_but_rays() -> None:
    content = compose()
    worker = content["services"]["reward-worker"]
    assert worker["networks"] == ["ray"] and content["networks"]["ray"]["internal"] is True
    assert worker["read_only"] is True and "deploy" not in worker
    assert set(worker["environment"]) == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    assert worker["volumes"] == ["reward-logs:/runs"], "its logs, and no run"


def test_each_container_has_a_gpu_of_its_own() -> None:
    """`count: 1` is the first GPU for every container that asks for it."""
    taken: list[str] = []
    for service in compose()["services"].values():
        for device in service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", []):
            assert "count" not in device and len(device["device_ids"]) == 1
            taken += device["device_ids"]
    assert taken == ["0", "1", "2", "3"]


def test_a_secret_is_only_where_it_is_needed_and_must_be_given() -> None:
    holders: dict[str, set[str]] = {}
    for name, service in compose()["services"].items():
        for variable, value in service.get("environment", {}).items():
            if "$" in value:
                assert ":?" in value, f"{name}: {variable} has no default that all know"
                holders.setdefault(variable, set()).add(name)
    assert holders["RAYZERO_API_TOKEN"] == {"ray-head"}
    assert holders["GF_SECURITY_ADMIN_PASSWORD"] == {"grafana"}


def test_four_runs_at_a_time_are_published_and_scraped() -> None:
    content = Path("deploy/prometheus/prometheus.yml").read_text(encoding="utf-8")
    (job,) = [job for job in yaml.safe_load(content)["scrape_configs"] if job["job_name"] == "rayzero"]
    scraped = [re.search(r":(\d+)/sd", entry["url"])[1] for entry in job["http_sd_configs"]]  # type: ignore[index]
    assert scraped == ["8100", "8101", "8102", "8103"]
    assert "127.0.0.1:8100-8103:8100-8103" in compose()["services"]["ray-head"]["ports"]


def test_reward_workers_may_make_the_namespaces_of_bubblewrap() -> None:
    options = compose()["services"]["reward-worker"]["security_opt"]
    assert {f"--security-opt {option}" for option in options if "unconfined" in option} == {
        f"--security-opt {option}"
        for option in CONTAINER_OPTIONS.removeprefix("--security-opt ").split(" --security-opt ")
    }


def test_nothing_is_open_to_other_machines() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_what_is_mounted_and_built_is_there() -> None:
    for service in compose()["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith("./") or Path(source).exists(), source
        if "build" in service:
            dockerfile = Path(service["build"]["dockerfile"]).read_text(encoding="utf-8")
            assert f" AS {service['build']['target']}\n" in dockerfile
            assert "USER rayzero" in dockerfile


def test_the_laptops_override_names_only_services_that_there_are() -> None:
    override = yaml.load(Path("deploy/docker/compose.cpu.yml").read_text(encoding="utf-8"), Loader=WithTags)
    assert set(override["services"]) <= set(compose()["services"])
    assert override["services"]["learner"]["deploy"] is None


def test_the_placement_fits_the_recipes_and_the_nodes() -> None:
    lines = Path("deploy/docker/placement.txt").read_text(encoding="utf-8").splitlines()
    overrides = [line for line in lines if not line.startswith("#")]
    cluster = load_recipe("deploy/recipes/demo.yaml", overrides).cluster
    offered = Path("docker-compose.yml").read_text(encoding="utf-8")
    for wanted in (cluster.learner_resources, cluster.rollout_resources, cluster.reward_resources):
        (resource,) = wanted
        assert f'"{resource}":' in offered
