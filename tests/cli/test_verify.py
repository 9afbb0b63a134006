"""`tidemill verify`: what it prints and how it ends."""

import json
from pathlib import Path

from tests.cli.conftest import Run
from tests.client.service import Service
from tests.tidemill.stored_job import FOLDER, OUTPUT, ROWS, StoredJob
from tidemill.client import Client


def test_a_whole_job_by_the_uri_of_its_manifest_or_folder(alone: Run, tmp_path: Path) -> None:
    job = StoredJob(tmp_path / "store")
    root = (tmp_path / "store").as_uri()
    for uri in (f"{root}/{OUTPUT}", f"{root}/{FOLDER}", f"{root}/{FOLDER}/output/"):
        result = alone("verify", uri)
        assert result.exit_code == 0, result.output
        assert f"{ROWS} rows, {ROWS - 1} succeeded, 1 failed" in result.stdout
        assert job.manifest(OUTPUT)["data_version"] in result.stdout


def test_damage_ends_with_1_and_is_named(alone: Run, tmp_path: Path) -> None:
    job = StoredJob(tmp_path / "store")
    job.rewrite_part(2, job.results[10:19])
    result = alone("verify", f"{(tmp_path / 'store').as_uri()}/{OUTPUT}", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["verified"], found["succeeded"]) == (False, ROWS - 2)
    assert "RESULT_MISSING" in found["faults"]
    text = alone("verify", f"{(tmp_path / 'store').as_uri()}/{OUTPUT}").stdout
    assert "RESULT_MISSING: 1 rows between row 19 and row 19 have no result" in text
    assert "NOT verified" in text


def test_a_uri_of_something_else_is_refused(alone: Run, tmp_path: Path) -> None:
    for uri in ("file:///tmp/x", f"{tmp_path.as_uri()}/jobs/acme", "ftp://host/jobs/a/b/output/manifest.json"):
        result = alone("verify", uri)
        assert result.exit_code == 2, result.output


def test_a_job_that_has_not_ended_is_refused_by_name(run: Run, service: Service) -> None:
    with Client(service.address, service.key) as client:
        job = client.submit(["a"], model=service.idle_model())
    result = run("verify", job.name)
    assert result.exit_code == 3
    assert "only a job that has ended can be verified" in result.stderr


def test_show_of_a_row_prints_its_chain(run: Run, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert run("submit", str(path), "-m", service.model, "-o", str(tmp_path / "out")).exit_code == 0
    with Client(service.address, service.key) as client:
        job = next(client.jobs())
    result = run("show", job.name, "--row", "1", "--json")
    # The fake worker stores no engine record, which is what the exit status says.
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)
    assert (found["job"], found["input"]["custom_id"], found["engine"]["build"]) == (job.name, "row-2", "fake 1.0")
    [mismatch] = found["mismatches"]
    assert "engine record" in mismatch
    assert "output_digest" in run("show", job.name, "--row", "1").stdout
    assert run("show", job.name, "--row", "2").exit_code == 3
