"""The clustered compose file names images, commands, variables and files that exist. No Docker engine is needed."""

import importlib.util
import re
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import yaml
from pydantic import SecretStr

from scripts.tracked import ROOT
from services.scheduler.ledger import RedisLedger
from services.scheduler.settings import SchedulerSettings
from tests.repo.test_deploy import CONTAINER_FILES, OURS, module_of, needs_variable, values
from tests.s3_server import running_s3
from tests.system.processes import wait_for
from tidemill.errors import TidemillError
from tidemill.store import open_store

FOLDER = ROOT / "deploy" / "cluster"
TEXT = (FOLDER / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
EXAMPLE = (FOLDER / ".env.example").read_text()
_BY_TWO = r"(redis|postgres):\d+\.\d+(\.\d+)?-bookworm|chrislusf/seaweedfs:\d+\.\d+"
PINNED_IMAGE = re.compile(rf"[a-z0-9./-]+:\d+\.\d+\.\d+(-[a-z0-9-]+)?|{_BY_TWO}")
INTERPOLATED = re.compile(r"\$\{([A-Z_0-9]+)(?::?[-?][^}]*)?\}")
INSTANCE = "dagster_defs/instance/dagster.cluster.yaml"
VALUES = {
    "REDIS_MAXMEMORY": "256mb",
    "REDIS_PASSWORD": "wave",  # pragma: allowlist secret
    "S3_ACCESS_KEY": "id",
    "S3_SECRET_KEY": "key",  # pragma: allowlist secret
}


def filled(text: str) -> str:
    """`text` with the variables of compose replaced."""
    return re.sub(r"\$\{([A-Z_0-9]+)[^}]*\}", lambda match: VALUES[match[1]], text)


def test_the_set_has_two_of_what_must_not_be_alone() -> None:
    expected = {
        "redis",
        "s3",
        "scheduler-1",
        "scheduler-2",
        "gateway-1",
        "gateway-2",
        "inference",
        "postgres",
        "webserver",
    }
    assert SERVICES.keys() >= expected | {"daemon", "collector", "jaeger"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened_pinned_and_runs_what_exists(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert PINNED_IMAGE.fullmatch(service["image"]), service["image"]
    if build := service.get("build"):
        path = (FOLDER / build["context"] / build["dockerfile"]).resolve()
        assert path in CONTAINER_FILES
        if target := build.get("target"):
            assert any(rest.endswith(f"AS {target}") for rest in values(path, "FROM"))
        if "command" in service:
            assert importlib.util.find_spec(module_of(service["command"]))
    assert all(volume.partition(":")[0] in COMPOSE["volumes"] for volume in service.get("volumes", []))
    # The collector's image holds nothing that could ask it.
    if service["restart"] == "unless-stopped" and name != "collector":
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_s_variables_dependencies_and_ports_hold(name: str) -> None:
    service = SERVICES[name]
    for variable in service.get("environment", {}):
        assert needs_variable(variable), variable
    needed = {"service_healthy": "healthcheck", "service_completed_successfully": "restart", "service_started": "image"}
    for other, condition in service.get("depends_on", {}).items():
        assert needed[condition["condition"]] in SERVICES[other]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "published beyond this machine"


def test_health_checks_ask_the_port_that_the_image_serves() -> None:
    asked = 0
    for name, service in SERVICES.items():
        address = re.search(r"127\.0\.0\.1:(\d+)", " ".join(service.get("healthcheck", {}).get("test", [])))
        if address and "build" in service:
            path = (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).resolve()
            assert any(address[1] in rest.split() for rest in values(path, "EXPOSE")), name
            asked += 1
    assert asked >= 6


def test_every_caller_knows_both_schedulers_and_each_says_where_it_is() -> None:
    both = "scheduler-1:7080,scheduler-2:7080"
    for name in ("gateway-1", "gateway-2", "inference"):
        environment = SERVICES[name]["environment"]
        assert environment[f"TIDEMILL_{name.partition('-')[0].upper()}_SCHEDULER"] == both
    for name in ("scheduler-1", "scheduler-2"):
        assert SERVICES[name]["environment"]["TIDEMILL_SCHEDULER_ADVERTISE"] == f"{name}:7080"


def test_the_annotated_variables_are_those_that_compose_reads() -> None:
    listed = dict(re.findall(r"^([A-Z_0-9]+)=(.*)$", EXAMPLE, re.MULTILINE))
    assert set(listed) == set(INTERPOLATED.findall(TEXT))
    for name in listed:
        before = EXAMPLE[: EXAMPLE.index(f"\n{name}=")].rpartition("\n\n")[2]
        assert before.startswith("#"), f"{name} has no annotation"
    assert {name for name in listed if name.startswith("TIDEMILL_")} <= OURS


def test_our_images_do_not_drift_from_the_package_s_version() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert {service["image"].rpartition(":")[2] for service in SERVICES.values() if "build" in service} == {version[1]}


def test_dagster_keeps_its_records_in_that_postgres() -> None:
    instance = yaml.safe_load((ROOT / INSTANCE).read_text())
    database = instance["storage"]["postgres"]["postgres_db"]
    wanted = {value["env"] for value in database.values() if isinstance(value, dict)}
    for name in ("webserver", "daemon"):
        assert SERVICES[name]["command"][-2:] == ["--instance", INSTANCE]
        assert wanted <= SERVICES[name]["environment"].keys()
        assert SERVICES[name]["environment"]["DAGSTER_POSTGRES_HOST"] in SERVICES
    # This imports the driver, and connects to nobody.
    assert sqlalchemy.create_engine(f"{database['scheme']}://host/database").driver == "psycopg2"
    assert "\ndagster-postgres==" in (ROOT / "requirements" / "dagster.lock").read_text()


def test_the_collector_hands_traces_to_jaeger() -> None:
    config = yaml.safe_load(COMPOSE["configs"]["collector"]["content"])
    traces = config["service"]["pipelines"]["traces"]
    assert [*traces["receivers"], *traces["processors"], *traces["exporters"]] == ["otlp", "batch", "otlp"]
    assert config["exporters"]["otlp"]["endpoint"].partition(":")[0] in SERVICES
    port = config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].rpartition(":")[2]
    assert SERVICES["gateway-1"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://collector:{port}"


def test_a_scheduler_accepts_a_redis_started_by_that_command(tmp_path: Path) -> None:
    program = shutil.which("redis-server")
    assert program, "redis-server is not installed; run: make redis (or: sudo apt-get install redis-server)"
    _, *arguments = [filled(str(word)) for word in SERVICES["redis"]["command"]]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    server = subprocess.Popen([program, *arguments, *own], stdout=subprocess.DEVNULL)
    settings = SchedulerSettings(
        ledger=f"redis://127.0.0.1:{port}", ledger_password=SecretStr(VALUES["REDIS_PASSWORD"])
    )
    ledger = settings.open_ledger(tmp_path)
    assert isinstance(ledger, RedisLedger)

    def opened() -> int:
        try:
            return ledger.open("a test").epoch
        except TidemillError as error:
            if "does not answer" not in error.message:
                raise
            return 0

    try:
        assert wait_for(opened, 20, "ledger in the Redis of the compose file") == 1
    finally:
        ledger.close()
        server.kill()
        server.wait()


def test_every_user_of_the_store_names_the_same_bucket() -> None:
    stores = {
        value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if name.endswith("_STORE")
    }
    assert stores == {"s3://tidemill/store?endpoint=http://s3:8333"}
    for name in ("gateway-1", "gateway-2", "inference"):
        assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= SERVICES[name]["environment"].keys()
        assert SERVICES[name]["depends_on"]["s3"] == {"condition": "service_healthy"}


def test_a_store_is_made_on_an_s3_server_started_by_that_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "s3.json"
    config.write_text(filled(COMPOSE["configs"]["s3"]["content"]))
    moved = {"/etc/seaweedfs/s3.json": str(config), "/data": str(tmp_path)}
    moved |= {"-ip=s3": "-ip=127.0.0.1", "0.0.0.0": "127.0.0.1", "-filer.localSocket=/tmp/": "-filer.localSocket="}
    arguments = [word for word in SERVICES["s3"]["command"] if not word.startswith("-s3.port=")]
    for old, new in moved.items():
        arguments = [word.replace(old, new) for word in arguments]
    with running_s3(arguments) as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", VALUES["S3_ACCESS_KEY"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", VALUES["S3_SECRET_KEY"])
        uri = SERVICES["gateway-1"]["environment"]["TIDEMILL_GATEWAY_STORE"].replace("http://s3:8333", server.endpoint)

        def made() -> bool:
            try:
                open_store(uri).check()
            except TidemillError:
                return False
            return True

        wait_for(made, 60, "store in the bucket of the compose file")
        asked = SERVICES["s3"]["healthcheck"]["test"][-1].replace("http://127.0.0.1:8333", server.endpoint)
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - loopback
            assert answer.status == 200
