"""The manifests for KubeRay name images, ports, variables and each other as they are. No Kubernetes is needed."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from scripts.tracked import ROOT
from services.inference.settings import InferenceSettings
from tests.repo.test_deploy import CONTAINER_FILES, module_of, needs_variable, values
from tidemill.store import is_local
from tidemill.store.s3_address import parse_s3

FOLDER = ROOT / "deploy" / "kuberay"
README = (FOLDER / "README.md").read_text()
OBJECTS: list[dict[str, Any]] = [
    item for path in sorted(FOLDER.glob("*.yaml")) for item in yaml.safe_load_all(path.read_text())
]
BY_KIND = {item["kind"]: item for item in OBJECTS}
CLUSTER, DEPLOYMENT, CONFIG = (BY_KIND[kind] for kind in ("RayCluster", "Deployment", "ConfigMap"))
HEAD = CLUSTER["spec"]["headGroupSpec"]
GROUPS = {group["groupName"]: group for group in CLUSTER["spec"]["workerGroupSpecs"]}
PODS: dict[str, dict[str, Any]] = {
    "head": HEAD["template"],
    **{name: group["template"] for name, group in GROUPS.items()},
    "inference": DEPLOYMENT["spec"]["template"],
}
IMAGES = {path.stem: path for path in CONTAINER_FILES}


def container(name: str) -> dict[str, Any]:
    [found] = PODS[name]["spec"]["containers"]
    return found


def variables(name: str) -> dict[str, Any]:
    """The container's own variables: values, or where they come from."""
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container(name)["env"]}


def probes(name: str) -> Iterator[dict[str, Any]]:
    return (probe for key, probe in container(name).items() if key.endswith("Probe"))


def test_there_is_what_the_readme_applies() -> None:
    assert set(re.findall(r"kubectl apply -f (\S+)", README)) == {
        str(path.relative_to(ROOT)) for path in FOLDER.glob("*.yaml")
    }
    kinds = {"RayCluster", "ConfigMap", "Deployment", "Service", "NetworkPolicy"}
    assert BY_KIND.keys() == kinds
    assert len(OBJECTS) == len(kinds)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_runs_an_image_of_ours_without_rights(name: str) -> None:
    image, _, tag = container(name)["image"].partition(":")
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert tag == version[1]
    path = IMAGES[image.removeprefix("tidemill-")]
    own, pod = container(name)["securityContext"], PODS[name]["spec"]["securityContext"]
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["runAsNonRoot"] is True
    assert values(path, "USER") == [f"{pod['runAsUser']}:{pod['runAsGroup']}"]
    assert variables(name)["PYTHONPATH"] in values(path, "WORKDIR")


@pytest.mark.parametrize("name", PODS)
def test_a_pod_s_variables_exist_and_secrets_come_by_reference(name: str) -> None:
    for variable, value in variables(name).items():
        assert needs_variable(variable), variable
        secret = re.search(r"TOKEN|KEY", variable)
        assert ("secretKeyRef" in value) == bool(secret), variable
        if secret:
            reference = value["secretKeyRef"]
            created = re.search(rf"secret generic {reference['name']} .*", README)
            assert created
            assert f"--from-literal={reference['key']}=" in created[0]
    assert variables(name)["RAY_AUTH_MODE"] == "token"
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= variables(name).keys(), "tasks open the store themselves"


@pytest.mark.parametrize("name", PODS)
def test_a_pod_mounts_what_it_has_and_can_write_where_it_must(name: str) -> None:
    volumes = {volume["name"]: volume for volume in PODS[name]["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container(name)["volumeMounts"]}
    assert set(mounts.values()) == volumes.keys()
    assert volumes[mounts["/tmp"]]["emptyDir"] == {}  # noqa: S108 - the pod's own
    assert any(mounts.get(path) for path in values(IMAGES["inference-cpu"], "VOLUME"))
    for volume in volumes.values():
        if claim := volume.get("persistentVolumeClaim"):
            assert f"`{claim['claimName']}`" in README
        if secret := volume.get("secret"):
            assert f"secret generic {secret['secretName']} " in README


def test_probes_ask_ports_that_something_serves() -> None:
    served = {
        "head": {6379},
        **{name: {int(group["rayStartParams"]["node-manager-port"])} for name, group in GROUPS.items()},
    }
    for name, ports in served.items():
        assert {probe["tcpSocket"]["port"] for probe in probes(name)} == ports
    named = {port["name"]: port["containerPort"] for port in container("inference")["ports"]}
    asked = {(probe["httpGet"]["path"], named[probe["httpGet"]["port"]]) for probe in probes("inference")}
    assert asked == {("/readyz", 7091), ("/healthz", 7091)}
    assert container("inference")["readinessProbe"]["httpGet"]["path"] == "/readyz"
    exposed = {rest for path in IMAGES.values() if path.stem.startswith("inference") for rest in values(path, "EXPOSE")}
    assert exposed == {"7091"}
    assert BY_KIND["Service"]["spec"]["ports"][0]["port"] == 7091


def test_the_service_joins_that_cluster_with_the_same_ray() -> None:
    data = CONFIG["data"]
    port = container("head")["ports"][0]["containerPort"]
    assert data["TIDEMILL_INFERENCE_RAY_ADDRESS"] == f"{CLUSTER['metadata']['name']}-head-svc:{port}"
    assert container("inference")["envFrom"] == [{"configMapRef": {"name": CONFIG["metadata"]["name"]}}]
    for lock in ("cpu", "gpu"):
        text = (ROOT / f"requirements/{lock}.lock").read_text()
        assert f"\nray=={CLUSTER['spec']['rayVersion']} " in text
    [script] = container("inference")["args"]
    command = re.search(r"exec (python -m \S+)$", script)
    assert command
    assert command[1].split() in [yaml.safe_load(rest) for rest in values(IMAGES["inference-gpu"], "CMD")]
    assert module_of(command[1].split()) == "services.inference"
    assert '--address="$TIDEMILL_INFERENCE_RAY_ADDRESS"' in script
    assert "--num-cpus=0 --num-gpus=0" in script, "engines go to the workers"


def test_the_settings_are_ones_that_the_service_takes() -> None:
    data = CONFIG["data"]
    assert all(needs_variable(name) for name in data)
    prefix = "TIDEMILL_INFERENCE_"
    settings = InferenceSettings(
        **{name.removeprefix(prefix).lower(): value for name, value in data.items() if name.startswith(prefix)}
    )
    assert not is_local(settings.store)
    parse_s3(settings.store)
    assert {source.model for source in settings.sources} >= set(settings.preloaded)
    assert container("inference")["image"].startswith(f"tidemill-inference-{settings.engine}:")
    mounted = {mount["mountPath"] for mount in container("inference")["volumeMounts"]}
    for name in ("CERTIFICATE", "KEY", "CA"):
        folder, _, file = data[f"TIDEMILL_MTLS_{name}"].rpartition("/")
        assert folder in mounted
        assert f"--from-file={file}" in README
    for source in settings.sources:
        assert source.source.startswith("/var/lib/tidemill/models/"), "one path on every node"


def test_only_pods_of_the_cluster_reach_ray() -> None:
    policy = BY_KIND["NetworkPolicy"]["spec"]
    label = policy["podSelector"]["matchLabels"]
    for pod in PODS.values():
        assert label.items() <= pod["metadata"]["labels"].items()
    inside, health = policy["ingress"]
    assert inside == {"from": [{"podSelector": {"matchLabels": label}}]}
    assert [port["port"] for port in health["ports"]] == [7091]


def test_gpus_are_asked_for_where_the_gpu_image_runs_engines() -> None:
    limits = {name: container(name)["resources"]["limits"] for name in GROUPS}
    assert "nvidia.com/gpu" in limits["gpu"]
    assert "nvidia.com/gpu" not in limits["cpu"]
    assert int(HEAD["rayStartParams"]["num-cpus"]) == 0
