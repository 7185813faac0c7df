"""The Kubernetes manifests: keys that the kinds know, locked down, and what refers to something finds it."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from rayzero.services.fleet.gpu_bundles import ROLES, Node, bundles_of, fit
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.errors import ActorStartError
from tests.system import needs

FOLDER = Path("deploy/kuberay")

TEXT, WHOLE = {"type": "string"}, {"type": "integer", "minimum": 0}
ANY: dict[str, object] = {}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object with these keys and no others: a misspelt one is an error, which the API server would swallow."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


CONTAINER = closed(
    ("name", "image", "env", "resources", "securityContext", "volumeMounts"),
    name=TEXT, image=TEXT, env={"type": "array"}, ports={"type": "array"}, resources=closed(("limits", "requests"),
    limits=TEXTS, requests=TEXTS), securityContext=ANY, volumeMounts={"type": "array"},
)  # fmt: skip
POD = closed(
    ("spec",),
    metadata=closed(labels=TEXTS),
    spec=closed(
        ("containers", "volumes", "securityContext"),
        automountServiceAccountToken={"type": "boolean"}, containers={"type": "array", "items": CONTAINER},
        securityContext=ANY, terminationGracePeriodSeconds=WHOLE, volumes={"type": "array"},
    ),
)  # fmt: skip
GROUP = closed(
    ("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    groupName=TEXT, replicas=WHOLE, minReplicas=WHOLE, maxReplicas=WHOLE, rayStartParams=TEXTS, template=POD,
)  # fmt: skip
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
# The part of KubeRay's published schema (ray.io/v1) that these manifests use.
SCHEMAS = {
    "RayCluster": closed(
        ("headGroupSpec", "workerGroupSpecs", "rayVersion"),
        rayVersion=TEXT,
        enableInTreeAutoscaling={"type": "boolean"},
        authOptions=closed(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
        autoscalerOptions=closed(version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=WHOLE, securityContext=ANY),
        headGroupSpec=closed(("rayStartParams", "template"), rayStartParams=TEXTS, template=POD),
        workerGroupSpecs={"type": "array", "items": GROUP},
    ),
    "RayJob": closed(
        ("entrypoint", "clusterSelector"),
        clusterSelector=TEXTS,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        backoffLimit=WHOLE, entrypoint=TEXT, entrypointResources=TEXT, runtimeEnvYAML=TEXT,
    ),
}  # fmt: skip


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(FOLDER.rglob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            yield str(file), document


def of_kind(kind: str) -> list[dict[str, Any]]:
    found = [document for _, document in documents() if document["kind"] == kind]
    assert found
    return found


def cluster() -> dict[str, Any]:
    spec: dict[str, Any] = of_kind("RayCluster")[0]["spec"]
    return spec


def groups() -> dict[str, dict[str, Any]]:
    return {group["groupName"]: group for group in cluster()["workerGroupSpecs"]}


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_ray_kinds_have_only_keys_that_kuberay_knows(kind: str) -> None:
    validator = Draft202012Validator(SCHEMAS[kind])
    for document in of_kind(kind):
        assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document["spec"])] == []


def test_the_schema_finds_a_misspelt_key() -> None:
    spec = cluster()
    spec["workerGroupSpecs"][0]["minReplica"] = 1
    assert list(Draft202012Validator(SCHEMAS["RayCluster"]).iter_errors(spec))


def test_every_kustomization_names_files_that_are_there() -> None:
    for file in FOLDER.rglob("kustomization.yaml"):
        for resource in yaml.safe_load(file.read_text(encoding="utf-8")).get("resources", ()):
            assert (file.parent / resource).exists(), f"{file}: {resource}"


def test_each_group_scales_by_itself_and_offers_its_own_resource() -> None:
    assert set(groups()) == {"learner", "rollout", "reward"}
    for name, group in groups().items():
        assert list(json.loads(json.loads(group["rayStartParams"]["resources"]))) == [name]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert groups()["rollout"]["maxReplicas"] > 1 < groups()["reward"]["maxReplicas"]


def nodes(**gpus: int) -> list[Node]:
    """The Ray nodes of each group at its largest, as its pods ask for them; `gpus` where a pod has others."""
    found = []
    for name, group in groups().items():
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        marks = json.loads(json.loads(group["rayStartParams"]["resources"]))
        num_gpus = gpus.get(name, int(limits.get("nvidia.com/gpu", 0)))
        found += [
            Node(name=f"{name}-{number}", num_gpus=num_gpus, num_cpus=int(limits["cpu"]), resources=marks)
            for number in range(group["maxReplicas"])
        ]
    return found


def place(nodes: list[Node], *changes: str) -> tuple[str, ...]:
    marks = [f"cluster.{key}_resources={{{name}: 1}}" for key, name in
             (("learner", "learner"), ("rollout", "rollout"), ("reward", "reward"))]  # fmt: skip
    recipe = load_recipe("deploy/recipes/qwen_0.6b_node.yaml", [*marks, *changes])
    learner_gpus = max(node.num_gpus for node in nodes if node.offers(recipe.cluster.learner_resources))
    return fit(nodes, bundles_of(recipe, ROLES, int(learner_gpus)))


def test_the_groups_hold_a_learner_and_as_many_engines_as_they_grow_to() -> None:
    most = groups()["rollout"]["maxReplicas"]
    learner, *engines = place(nodes(), f"rollout.num_workers={most}", f"rollout.max_workers={most}")
    assert learner == "learner-0"
    assert sorted(engines) == sorted(f"rollout-{number}" for number in range(most))


def test_a_larger_learner_needs_a_larger_pod_and_not_more_of_its_mark() -> None:
    with pytest.raises(ActorStartError, match=r"the run needs 8 GPUs on nodes with learner 1, and they have 1"):
        place(nodes(), "cluster.learner_gpus=8")
    assert place(nodes(learner=8), "cluster.learner_gpus=8")[0] == "learner-0"
    with pytest.raises(ActorStartError, match=r"a reward worker needs 1 GPUs on one node with reward 1, and .* has 0"):
        place(nodes(), "reward.num_gpus_per_worker=1")
    assert place(nodes(reward=1), "reward.num_gpus_per_worker=0.5")[-4:] == ("reward-0",) * 2 + ("reward-1",) * 2


def test_no_container_is_root_or_may_become_it() -> None:
    templates = [cluster()["headGroupSpec"]["template"], *(group["template"] for group in groups().values())]
    for template in templates:
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        assert template["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in template["spec"]["containers"]:
            assert RESTRICTED.items() <= container["securityContext"].items()
    assert cluster()["autoscalerOptions"]["securityContext"] == RESTRICTED


def test_the_operator_and_the_autoscaler_show_the_token_that_the_nodes_ask_for() -> None:
    options = cluster()["authOptions"]
    assert options["mode"] == "token"
    (example,) = of_kind("Secret")
    assert options["secretName"] == example["metadata"]["name"]
    assert "auth_token" in example["stringData"], "the key that KubeRay looks for"
    for template in [cluster()["headGroupSpec"]["template"], *(group["template"] for group in groups().values())]:
        (container,) = template["spec"]["containers"]
        secrets = {v["name"]: v["valueFrom"]["secretKeyRef"] for v in container["env"] if "valueFrom" in v}
        assert secrets["RAY_AUTH_TOKEN"] == {"name": options["secretName"], "key": "auth_token"}
        assert ("RAYZERO_API_TOKEN" in secrets) == (container["name"] == "ray-head")


def pods() -> dict[str, dict[str, str]]:
    """The labels of every kind of pod, as KubeRay sets them."""
    ours = {"ray.io/cluster": "rayzero"}
    templates = {name: group["template"]["metadata"]["labels"] for name, group in groups().items()}
    return {"head": ours, **{name: {**ours, **labels} for name, labels in templates.items()}}


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """As Kubernetes does."""
    for wanted in selector.get("matchExpressions", []):
        assert wanted["operator"] == "NotIn"
        if labels.get(wanted["key"]) in wanted["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def test_every_pod_has_the_policy_that_is_meant_for_it_and_no_other() -> None:
    found = {
        name: [policy["metadata"]["name"] for policy in of_kind("NetworkPolicy")
               if selects(policy["spec"]["podSelector"], labels)]
        for name, labels in pods().items()
    }  # fmt: skip
    assert found.pop("reward") == ["reward-pods"], "policies add up: a second one would open what this one closes"
    assert set(map(tuple, found.values())) == {("ray-nodes",)}


def test_the_operator_reaches_the_dashboard_whatever_its_namespace_is_called() -> None:
    """Its Helm chart labels the pod, and no namespace."""
    (policy,) = [policy for policy in of_kind("NetworkPolicy") if policy["metadata"]["name"] == "ray-nodes"]
    rules = [rule for rule in policy["spec"]["ingress"] if "kuberay-operator" in json.dumps(rule)]
    operator = {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}
    assert rules == [
        {"from": [{"namespaceSelector": {}, "podSelector": operator}], "ports": [{"port": 8265, "protocol": "TCP"}]}
    ]


def test_four_runs_at_a_time_have_ports_and_are_scraped() -> None:
    ports = {port["containerPort"] for port in cluster()["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]}
    (service,) = of_kind("Service")
    (scrape,) = of_kind("ScrapeConfig")
    scraped = {int(entry["url"].split(":")[2].split("/")[0]) for entry in scrape["spec"]["httpSDConfigs"]}
    assert scraped == {8100, 8101, 8102, 8103} <= ports & {port["port"] for port in service["spec"]["ports"]}


def test_reward_pods_have_no_models_no_api_token_no_service_account_and_no_way_out() -> None:
    spec = groups()["reward"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert {variable["name"] for variable in container["env"]} == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in spec["volumes"] if "emptyDir" not in volume}
    assert claims == {"reward-logs"}, "their logs, and no run"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    writable = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert writable == {"/runs", "/tmp", "/home/rayzero", "/dev/shm"}
    labels = groups()["reward"]["template"]["metadata"]["labels"]
    policy = next(p for p in of_kind("NetworkPolicy") if p["spec"]["podSelector"]["matchLabels"] == labels)
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert all("to" in rule for rule in policy["spec"]["egress"])


def test_no_secret_is_applied_or_written_out() -> None:
    applied = [file for file, document in documents() if document["kind"] == "Secret"]
    assert applied == ["deploy/kuberay/secret.example.yaml"]
    values = [v for _, d in documents() if d["kind"] == "Secret" for v in d["stringData"].values()]
    assert set(values) == {"replace-me"}


def test_the_jobs_command_is_a_run_that_the_recipe_allows() -> None:
    for job in of_kind("RayJob"):
        words = shlex.split(job["spec"]["entrypoint"])
        assert words[:4] == ["python", "-m", "rayzero", "train"]
        recipe = load_recipe(words[4].removeprefix("/opt/rayzero/"), words[5 : words.index("--runs")])
        assert recipe.observe.api.port == 8100 and set(recipe.cluster.rollout_resources) <= set(groups())
        assert yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "300"


@needs("kubectl")
@pytest.mark.parametrize("overlay", ["overlays/gpu", "overlays/cpu-smoke"])
def test_the_overlays_build(overlay: str) -> None:
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER / overlay)], capture_output=True, text=True, check=False)
    if "unknown field" in done.stderr or "invalid Kustomization" in done.stderr:
        pytest.skip(f"kubectl is too old for these kustomizations: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    (ray,) = [document for document in built if document["kind"] == "RayCluster"]
    assert ray["metadata"]["namespace"] == "rayzero"
    gpus = json.dumps(ray).count("nvidia.com/gpu")
    assert gpus == (0 if overlay.endswith("cpu-smoke") else 4)
    assert not list(Draft202012Validator(SCHEMAS["RayCluster"]).iter_errors(ray["spec"]))


def test_the_component_for_bubblewrap_patches_the_reward_group() -> None:
    (component,) = of_kind("Component")
    cluster = next(found for found in of_kind("RayCluster") if "workerGroupSpecs" in found["spec"])
    for operation in yaml.safe_load(component["patches"][1]["patch"]):
        *parents, last = operation["path"].strip("/").split("/")
        place: Any = cluster
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if operation["op"] == "test":
            assert place[last] == operation["value"] == "reward"
        place[last] = operation["value"]
    pod = cluster["spec"]["workerGroupSpecs"][2]["template"]["spec"]
    context = pod["containers"][0]["securityContext"]
    assert pod["hostUsers"] is False and context["procMount"] == "Unmasked"
    assert context["seccompProfile"] == context["appArmorProfile"] == {"type": "Unconfined"}
    assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}
