"""The container files and the compose file name modules, variables and files that exist. No Docker engine is needed."""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import env_example
from scripts.tracked import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
CONTAINER_FILES = sorted((DEPLOY / "containers").glob("*.Dockerfile"))
PINNED = re.compile(r"^FROM (?:[a-z0-9./-]+:\d+\.\d+\.\d+-[a-z0-9-]+|[a-z]+)(?: AS [a-z]+)?$")
OURS = {name for settings in env_example.SECTIONS.values() for name in env_example.variables(settings)}
OTHERS = {name for section in env_example.OTHERS.values() for name in section}
INTERPOLATED = re.compile(r"\$\{([A-Z_]+)(?::?[-?][^}]*)?\}")


def instructions(path: Path) -> list[tuple[str, str]]:
    """The container file's instructions, continuation lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(keyword, rest) for keyword, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def values(path: Path, keyword: str) -> list[str]:
    return [rest for one, rest in instructions(path) if one == keyword]


def module_of(command: list[str]) -> str:
    assert command[:2] == ["python", "-m"]
    return command[2]


def copied(path: Path) -> set[str]:
    """What the image holds of the repository."""
    sources = [shlex.split(rest)[:-1] for rest in values(path, "COPY") if not rest.startswith("--from")]
    return {source for group in sources for source in group}


def needs_variable(name: str) -> bool:
    """Whether a variable is one that a settings class reads, where it looks like one."""
    return not name.startswith("TIDEMILL_") or name in OURS | OTHERS


@pytest.mark.parametrize("path", CONTAINER_FILES, ids=lambda path: path.stem)
def test_a_container_file_is_pinned_unprivileged_and_complete(path: Path) -> None:
    assert all(PINNED.match(f"FROM {rest}") for rest in values(path, "FROM"))
    user = [index for index, (keyword, _) in enumerate(instructions(path)) if keyword == "USER"]
    commands = [index for index, (keyword, _) in enumerate(instructions(path)) if keyword == "CMD"]
    assert user
    assert commands
    assert user[0] < commands[0], "the command must not run as root"
    for source in copied(path):
        assert (ROOT / source).exists(), f"{path.name} copies {source}"
    for rest in values(path, "CMD"):
        module = module_of(yaml.safe_load(rest))
        assert importlib.util.find_spec(f"{module}.__main__"), module
        assert any(module.replace(".", "/").startswith(source) for source in copied(path)), f"{module} is not copied"


@pytest.mark.parametrize("path", CONTAINER_FILES, ids=lambda path: path.stem)
def test_a_container_file_sets_only_variables_that_exist(path: Path) -> None:
    for rest in values(path, "ENV"):
        for assignment in shlex.split(rest):
            assert needs_variable(assignment.partition("=")[0]), assignment


@pytest.mark.parametrize("path", CONTAINER_FILES, ids=lambda path: path.stem)
def test_an_image_installs_from_a_lock_with_hashes(path: Path) -> None:
    [installed] = [rest for rest in values(path, "RUN") if "pip install" in rest]
    for command in installed.split("&&"):
        if ".lock" in command and "cpu-torch" not in command:
            assert "--no-deps --require-hashes" in command


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened_checked_and_runs_what_exists(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    build = service["build"]
    path = (DEPLOY / build["context"] / build["dockerfile"]).resolve()
    assert path in CONTAINER_FILES
    if target := build.get("target"):
        assert any(rest.endswith(f"AS {target}") for rest in values(path, "FROM"))
    if "command" in service:
        module = module_of(service["command"])
        assert importlib.util.find_spec(module), module
    if service["restart"] == "unless-stopped":
        assert service["healthcheck"]["test"][0] == "CMD"
    assert all(volume.partition(":")[0] in COMPOSE["volumes"] for volume in service["volumes"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_s_variables_dependencies_and_ports_hold(name: str) -> None:
    service = SERVICES[name]
    for variable in service.get("environment", {}):
        assert needs_variable(variable), variable
    for other, condition in service.get("depends_on", {}).items():
        expected = "restart" if condition["condition"] == "service_completed_successfully" else "healthcheck"
        assert expected in SERVICES[other]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "published beyond this machine"


def test_health_checks_ask_the_port_that_the_image_serves() -> None:
    for name, service in SERVICES.items():
        address = re.search(r"127\.0\.0\.1:(\d+)", " ".join(service.get("healthcheck", {}).get("test", [])))
        if address:
            path = (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve()
            assert any(address[1] in rest.split() for rest in values(path, "EXPOSE")), name


def test_the_annotated_variables_are_those_that_compose_reads() -> None:
    text = (DEPLOY / ".env.example").read_text()
    listed = dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))
    assert set(listed) == set(INTERPOLATED.findall((DEPLOY / "compose.yaml").read_text()))
    for name in listed:
        before = text[: text.index(f"\n{name}=")].rpartition("\n\n")[2]
        assert before.startswith("#"), f"{name} has no annotation"
    assert set(filter(lambda name: name.startswith("TIDEMILL_"), listed)) <= OURS


def test_the_build_context_holds_what_the_images_copy() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for path in CONTAINER_FILES:
        assert {source.split("/")[0] for source in copied(path)} <= allowed


def test_images_do_not_drift_from_the_package_s_version() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert {service["image"].rpartition(":")[2] for service in SERVICES.values()} == {version[1]}
