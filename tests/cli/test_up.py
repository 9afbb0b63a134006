"""The parts around the supervisor: ports, environment, the home folder, models, readiness, process specifications."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tidemill.errors import Reason, TidemillError
from tidemill.keys import hash_key, list_keys, revoke_key
from tidemill.preflight import PORTS
from tidemill.up import dagster
from tidemill.up.embedded import UpOptions, choose, parse_model, tiny_model
from tidemill.up.environment import base_environment, dropped
from tidemill.up.health import daemon_check, service_check, webserver_check
from tidemill.up.home import Home
from tidemill.up.ports import choose_ports
from tidemill.up.services import EmbeddedSet, ModelSource, process_specs
from tidemill.v1 import job_pb2


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


def test_a_taken_port_gives_the_next() -> None:
    first = choose_ports()
    assert list(first) == list(PORTS)
    assert len(set(first.values())) == len(PORTS)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first["gateway"]))
        taken.listen()
        second = choose_ports()
    assert second["gateway"] > first["gateway"]
    assert len(set(second.values())) == len(PORTS)


def test_a_taken_port_is_mentioned(home: Home) -> None:
    told: list[str] = []
    options = UpOptions(home.root, models=("a/b",))
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Where another program has the port already, that one serves as well.
        with contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", PORTS["gateway"]))
            taken.listen()
        chosen = choose(options, home, told.append)
    assert chosen.ports["gateway"] != PORTS["gateway"]
    assert f"port 7070 (gateway) is taken; {chosen.ports['gateway']} is used" in told


def test_any_port() -> None:
    ports = choose_ports(any_port=True)
    assert len(set(ports.values())) == len(PORTS)
    assert all(port > 1024 for port in ports.values())


def test_what_points_at_other_clusters_is_dropped() -> None:
    inherited = {
        "PATH": "/bin",
        "RAY_ADDRESS": "ray://x",
        "RAY_AUTH_TOKEN": "t",
        "RAY_AUTH_MODE": "token",
        "DAGSTER_HOME": "/x",
        "TIDEMILL_SCHEDULER_CHUNK_ROWS": "7",
    }
    environment = base_environment(inherited)
    assert dropped(inherited) == ["DAGSTER_HOME", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"]
    assert not set(dropped(inherited)) & set(environment)
    assert environment["PATH"] == "/bin"
    assert environment["TIDEMILL_SCHEDULER_CHUNK_ROWS"] == "7"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_home_has_one_supervisor(home: Home) -> None:
    with home.locked():
        home.announce({"pid": 42})
        with pytest.raises(TidemillError, match="process 42 runs `tidemill up` on") as caught, home.locked():
            pass
        assert caught.value.reason is Reason.UNAVAILABLE
    with home.locked():
        home.withdraw()
    assert not home.up_file.exists()


def test_secrets_are_made_once_and_private(home: Home) -> None:
    pepper, key = home.pepper(), home.development_key()
    assert (home.pepper(), home.development_key()) == (pepper, key)
    [record] = list_keys(home.keys_file)
    assert (record.tenant, record.hash) == ("dev", hash_key(pepper, key))
    home.announce({"api_key": key})
    for path in (home.root / "pepper", home.root / "dev-key", home.keys_file, home.up_file):
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert home.root.stat().st_mode & 0o777 == 0o700


def test_the_development_key_is_an_admin_key(home: Home) -> None:
    key = home.development_key()
    [record] = list_keys(home.keys_file)
    assert record.admin
    # A home of an earlier version has one that is not.
    fields = json.loads(home.keys_file.read_text())
    fields["version"] = 1
    fields["keys"][0].pop("scopes")
    home.keys_file.write_text(json.dumps(fields))
    assert home.development_key() != key
    assert [record.admin for record in list_keys(home.keys_file)] == [False, True]


def test_a_development_key_that_is_not_valid_any_more_is_replaced(home: Home) -> None:
    for end in (home.keys_file.unlink, lambda: revoke_key(home.keys_file, list_keys(home.keys_file)[-1].id)):
        key = home.development_key()
        end()
        replaced = home.development_key()
        assert replaced != key
    assert hash_key(home.pepper(), replaced) in {record.hash for record in list_keys(home.keys_file)}


def test_logs_of_the_run_before_are_set_aside(home: Home) -> None:
    (home.logs / "gateway.log").write_text("old")
    home.rotate_logs()
    assert [path.name for path in home.logs.iterdir()] == ["gateway.log.1"]


def test_models(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    assert parse_model(str(folder)) == ModelSource("my-model", str(folder))
    assert parse_model(f"short={folder}") == ModelSource("short", str(folder))
    assert parse_model("Qwen/Qwen2.5-0.5B-Instruct").id == "Qwen/Qwen2.5-0.5B-Instruct"
    assert parse_model("q=Qwen/Qwen2.5-0.5B-Instruct") == ModelSource("q", "Qwen/Qwen2.5-0.5B-Instruct")
    for text in ("/nonexistent", "a=./nonexistent"):
        with pytest.raises(TidemillError, match="is not a folder"):
            parse_model(text)


def test_the_tiny_model_is_made_once(home: Home) -> None:
    model = tiny_model(home.tiny_model)
    written = (home.tiny_model / "config.json").stat().st_mtime_ns
    assert tiny_model(home.tiny_model) == model == ModelSource("tiny", str(home.tiny_model))
    assert (home.tiny_model / "config.json").stat().st_mtime_ns == written
    assert [path.name for path in home.tiny_model.parent.iterdir()] == ["tiny"]


def test_specifications_point_the_processes_at_each_other(home: Home) -> None:
    ports = {name: 10_000 + number for number, name in enumerate(PORTS)}
    chosen = EmbeddedSet(home, ports, [ModelSource("tiny", "/m,odel")], "cpu")
    specs = {spec.name: spec for spec in process_specs(chosen, "secret-key")}
    assert list(specs) == ["scheduler", "gateway", "inference", "dagster-webserver", "dagster-daemon"]
    scheduler, gateway, inference = (specs[name].env for name in ("scheduler", "gateway", "inference"))
    assert gateway["TIDEMILL_GATEWAY_SCHEDULER"] == scheduler["TIDEMILL_SCHEDULER_ADDRESS"] == "127.0.0.1:10002"
    assert json.loads(inference["TIDEMILL_INFERENCE_MODELS"]) == [{"id": "tiny", "path": "/m,odel"}]
    assert specs["dagster-daemon"].env["TIDEMILL_DAGSTER_GATEWAY"] == gateway["TIDEMILL_GATEWAY_ADDRESS"]
    assert specs["dagster-daemon"].env["TIDEMILL_DAGSTER_API_KEY"] == "secret-key"
    # Secrets go to those who need them, and never on a command line that any user can read.
    assert [name for name, spec in specs.items() if home.pepper() in spec.env.values()] == ["gateway"]
    for spec in specs.values():
        assert not {"secret-key", home.pepper()} & set(spec.command)
    without = EmbeddedSet(home, ports, chosen.models, dagster=False)
    assert [spec.name for spec in process_specs(without, "k")] == list(specs)[:3]


class FakeWebserver:
    """Answers every request with what it was told."""

    def __init__(self) -> None:
        self.status, self.body = 200, "{}"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(outer.status)
                self.end_headers()
                self.wfile.write(outer.body.encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def webserver() -> Iterator[FakeWebserver]:
    fake = FakeWebserver()
    thread = threading.Thread(target=fake.server.serve_forever)
    thread.start()
    try:
        yield fake
    finally:
        fake.server.shutdown()
        thread.join()
        fake.server.server_close()


def test_a_service_is_ready_when_it_says_so(webserver: FakeWebserver, tmp_path: Path) -> None:
    ready_file = tmp_path / "ready"
    check = service_check(ready_file, webserver.address)
    assert check() == "starting"
    ready_file.touch()
    webserver.status, webserver.body = 503, '{"ready": false, "reason": "loading tiny"}'
    assert check() == "reason=loading tiny"
    webserver.body = "?"
    assert check() == "not ready"
    webserver.status = 200
    assert check() is None
    assert service_check(ready_file, "127.0.0.1:1")() == "not answering"


def test_dagster_is_ready_when_its_daemon_is(webserver: FakeWebserver) -> None:
    assert webserver_check(webserver.address)() is None
    assert webserver_check("127.0.0.1:1")() == "starting"
    assert daemon_check("127.0.0.1:1")() == "the webserver"
    for healthy, waits in ((False, "its first heartbeat"), (True, None)):
        status = {"instance": {"daemonHealth": {"daemonStatus": {"healthy": healthy}}}}
        webserver.body = json.dumps({"data": status})
        assert daemon_check(webserver.address)() == waits


def test_materialisations_of_the_job_are_counted(webserver: FakeWebserver) -> None:
    job = job_pb2.Job(name="tenants/dev/jobs/ID", dataset="a b")
    webserver.body = json.dumps({"data": {"assetOrError": {}}})
    assert dagster.count_materializations(webserver.address, job) == 0
    items = [{"tags": [{"key": "tidemill/job_id", "value": value}]} for value in ("ID", "OTHER", "ID")]
    webserver.body = json.dumps({"data": {"assetOrError": {"assetMaterializations": items}}})
    assert dagster.count_materializations(webserver.address, job) == 2
    assert dagster.partition_page("h:1", job) == "http://h:1/assets/outputs?view=partitions&partition=a%20b"
