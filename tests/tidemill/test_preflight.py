"""The checks that run before anything is installed."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tidemill import preflight

ROOT = Path(__file__).resolve().parents[2]
GIB = preflight.GIB


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("version", "level"), [((3, 10), "error"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "error")]
)
def test_python_versions(version: tuple[int, int], level: str) -> None:
    assert preflight.python_version(version).level == level


def test_a_foreign_machine_learns_what_does_work() -> None:
    finding = preflight.machine("cpu", "Darwin", "arm64")
    assert finding.level == "error"
    assert "the client" in finding.remedy


def test_the_cpu_engine_needs_avx2(tmp_path: Path) -> None:
    old = write(tmp_path / "old", "flags\t\t: fpu sse4_2\n")
    new = write(tmp_path / "new", "processor: 0\nflags\t\t: fpu avx2\n")
    assert preflight.machine("cpu", "Linux", "x86_64", old).level == "error"
    assert preflight.machine("cpu", "Linux", "x86_64", tmp_path / "none").level == "error"
    assert preflight.machine("cpu", "Linux", "x86_64", new).level == "ok"
    assert preflight.machine("gpu", "Linux", "x86_64", old).level == "ok"


def test_memory_is_what_the_control_group_leaves(tmp_path: Path) -> None:
    write(tmp_path / "proc" / "meminfo", f"MemTotal: 99 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    groups = tmp_path / "groups"
    assert preflight.available_memory(tmp_path / "proc", groups) == 8 * GIB
    write(groups / "memory.max", "max\n")
    write(groups / "memory.current", "5\n")
    assert preflight.available_memory(tmp_path / "proc", groups) == 8 * GIB
    write(groups / "memory.max", str(3 * GIB))
    write(groups / "memory.current", str(GIB))
    assert preflight.available_memory(tmp_path / "proc", groups) == 2 * GIB
    assert preflight.available_memory(tmp_path / "none", groups) == sys.maxsize


def test_too_little_memory_is_an_error_with_its_remedy() -> None:
    assert preflight.memory("cpu", 32 * GIB).level == "ok"
    finding = preflight.memory("cpu", GIB)
    assert finding.level == "error"
    assert "larger machine" in finding.remedy


def test_shared_memory(tmp_path: Path) -> None:
    assert preflight.shared_memory(tmp_path).level == "ok"
    assert preflight.shared_memory(tmp_path / "none").level == "warning"


def test_the_gpu_profile_needs_a_driver(tmp_path: Path) -> None:
    driver = write(tmp_path / "version", "NVRM")
    assert preflight.graphics("gpu", tmp_path / "none").level == "error"
    assert preflight.graphics("gpu", driver).level == "ok"
    assert preflight.graphics("cpu", tmp_path / "none").level == "ok"
    assert "ENGINE=gpu" in preflight.graphics("cpu", driver).remedy


def test_a_taken_port_names_the_next_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(preflight, "PORTS", {"gateway": port})
        [finding] = preflight.ports()
    assert finding.level == "warning"
    assert str(port) in finding.found
    assert int(finding.remedy.split(",")[0]) > port


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(preflight.DISK_BYTES, "cpu", 1)
    assert preflight.disk("cpu", tmp_path).level == "ok"
    monkeypatch.setitem(preflight.DISK_BYTES, "cpu", sys.maxsize)
    assert preflight.disk("cpu", tmp_path).level == "error"


def test_the_index_is_pip_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    config = write(tmp_path / "pip.conf", "[global]\nindex-url = http://127.0.0.1:9/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert preflight.index_url() == "http://127.0.0.1:9/simple"
    assert preflight.package_index().level == "warning"
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert "proxy" in preflight.package_index().found
    monkeypatch.setenv("PIP_INDEX_URL", "file:///mirror")
    assert preflight.package_index() == preflight.Finding("package index", "ok", "a folder: /mirror")


def test_an_index_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.getsockname()[1]}/simple")
        assert preflight.package_index().level == "ok"


def test_a_broken_pip_configuration_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(write(tmp_path / "pip.conf", "index-url = no section\n")))
    assert preflight.index_url().startswith("https://")


def test_report_shows_remedies_and_says_whether_it_fails() -> None:
    lines: list[str] = []
    fine = preflight.Finding("a", "ok", "found", "hidden")
    note = preflight.Finding("b", "warning", "found", "do this")
    assert preflight.report([fine, note], lines.append)
    assert lines == ["ok   a: found", "note b: found", "     -> do this"]
    assert not preflight.report([preflight.Finding("c", "error", "found", "do that")], lines.append)


def test_the_script_runs_without_the_package(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "scripts" / "preflight.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.stdout.startswith("needs about"), finished.stderr
    assert "FAIL" not in finished.stdout or finished.returncode == 1
