"""The verbs of a job and the operator's tools, by the command against a real service."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.client.service import Service
from tidemill.client import Client


@pytest.fixture
def waiting(service: Service) -> str:
    """A job that no worker takes."""
    with Client(service.address, service.key) as client:
        return client.submit(["a", "b"], model=service.idle_model()).name


@pytest.fixture
def operator(service: Service, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command with an admin key."""
    key = service.key_of("operator", admin=True)

    def as_operator(*arguments: str) -> object:
        with monkeypatch.context() as patch:
            patch.setenv("TIDEMILL_API_KEY", key)
            return run(*arguments)

    return as_operator  # pyright: ignore[reportReturnType]


def test_submit_with_terms(run: Run, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n')
    terms = ["--class", "URGENT", "--on-deadline", "expire", "--escalate", "raise-class", "--accept-at-risk"]
    result = run("submit", str(path), "-m", service.model, "--no-wait", *terms)
    assert result.exit_code == 0, result.stderr
    shown = json.loads(run("show", result.stdout.strip(), "--json").stdout)
    assert shown["service_class"] == "SERVICE_CLASS_URGENT"
    assert shown["on_deadline"] == "DEADLINE_POLICY_EXPIRE"
    assert shown["escalation"] == {"raise_class": True}
    assert shown["accept_at_risk"] is True


def test_pause_update_resume(run: Run, waiting: str) -> None:
    assert run("pause", waiting).stdout.strip() == f"{waiting} PAUSED"
    assert "PAUSED_BY_OWNER" in run("show", waiting).stdout
    updated = run("update", waiting, "--deadline", "3h", "--class", "flex", "--escalate", "none", "--json")
    assert json.loads(updated.stdout)["service_class"] == "SERVICE_CLASS_FLEX"
    resumed = json.loads(run("resume", waiting, "--json").stdout)
    assert resumed["state"] == "JOB_STATE_QUEUED"
    assert run("cancel", waiting).exit_code == 0


def test_failed_rows_are_asked_again(run: Run, service: Service) -> None:
    with Client(service.address, service.key) as client:
        rows = [{"prompt": "x", "custom_id": "fail-1"}, {"prompt": "x", "custom_id": "good"}]
        job = client.submit(rows, model=service.model)
        job.wait(timeout=30)
    retried = run("retry", job.name, "--deadline", "1h", "--request-id", "once-more")
    assert retried.exit_code == 0, retried.stderr
    again = json.loads(run("retry", job.name, "--deadline", "1h", "--request-id", "once-more", "--json").stdout)
    assert again == {"name": retried.stdout.strip(), "retry_of": job.name}
    assert "1/1 rows" in run("watch", again["name"]).stderr


def test_estimate(run: Run, service: Service, waiting: str) -> None:
    imagined = run("estimate", "--model", service.model, "--rows", "500", "--output-tokens", "20", "-d", "2h")
    assert imagined.exit_code == 0, imagined.stderr
    assert "500 rows of about" in imagined.stdout
    assert "deadline holds" in imagined.stdout
    assert "2 rows of about" in json.loads(run("estimate", waiting, "--json").stdout)["basis"]


def test_quotas(run: Run, operator: Run, waiting: str) -> None:
    shown = run("quotas")
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.startswith("QUOTA")
    assert "tokens_per_day" in shown.stdout
    held = json.loads(run("quotas", "--json").stdout)
    assert held["name"] == "tenants/dev/quota"
    assert held["uses"]["jobs"]["used"] >= 1
    assert held["uses"]["calls_per_second"] == {"limit": 2000, "used": 0}
    assert json.loads(operator("quotas", "--tenant", "dev", "--json").stdout)["name"] == "tenants/dev/quota"
    assert run("quotas", "--tenant", "other").exit_code != 0


def test_the_operator_s_tools(run: Run, operator: Run, waiting: str) -> None:
    denied = run("admin", "fail", waiting, "--message", "no")
    assert denied.exit_code == 3
    assert "tidemill keys create --tenant dev --scope admin" in denied.stderr
    nothing = operator("admin", "requeue", waiting, "--row", "0")
    assert nothing.exit_code == 3
    failed = operator("admin", "fail", waiting, "--message", "in the way", "--json")
    assert failed.exit_code == 0, failed.stderr
    assert "in the way" in run("watch", waiting).stderr


def test_a_model_is_warmed(run: Run, operator: Run, service: Service) -> None:
    model = service.model
    assert run("models", "warm", model).exit_code == 3, "admin keys only"
    warmed = json.loads(operator("models", "warm", model, "--json").stdout)
    assert (warmed["model"], len(warmed["digest"])) == (model, 64)
    [listed] = [
        item for item in json.loads(run("models", "list", "--json").stdout) if item["name"] == f"models/{model}"
    ]
    assert not listed.get("pinned"), "as before"
    assert run("models", "digest", model).stdout.strip() == warmed["digest"]
    refused = operator("models", "warm", "nothing")
    assert (refused.exit_code, "no worker offers" in refused.stderr, model in refused.stderr) == (3, True, True)


def test_a_drained_model_is_not_warmed(operator: Run, service: Service) -> None:
    assert operator("models", "drain", service.model).exit_code == 0
    result = operator("models", "warm", service.model)
    operator("models", "undrain", service.model)
    assert (result.exit_code, "tidemill models undrain" in result.stderr) == (3, True)


def test_models_are_changed_by_the_operator(run: Run, operator: Run, service: Service) -> None:
    model = service.idle_model()
    assert run("models", "drain", model).exit_code == 3
    assert operator("models", "drain", model).stdout.strip() == f"{model} drained"
    assert json.loads(operator("models", "pin", model, "--json").stdout)["pinned"] is True
    [line] = [line for line in run("models", "list").stdout.splitlines() if line.startswith(f"{model} ")]
    assert "drained,pinned" in line
    operator("models", "undrain", model)
    assert operator("models", "unpin", model).stdout.strip() == f"{model} neither drained nor pinned"


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["update", "JOB"], "nothing to change", 2),
        (["update", "JOB", "--class", "fast"], "one of urgent, standard, flex", 2),
        (["update", "JOB", "--on-deadline", "stop"], "one of run_late, expire", 2),
        (["update", "JOB", "--escalate", "panic"], "takes raise_class and more_parallelism", 2),
        (["update", "JOB", "--deadline", "1s"], "one minute to thirty days", 2),
        (["estimate"], "name a JOB, or imagine one", 2),
        (["estimate", "JOB", "--model", "m"], "name a JOB, or imagine one", 2),
        (["estimate", "--model", "m"], "name a JOB, or imagine one", 2),
        (["retry", "JOB"], "wait, or cancel it", 3),
        (["admin", "requeue", "JOB"], "--row", 2),
        (["admin", "fail", "JOB"], "--message", 2),
    ],
)
def test_errors_say_what_to_do(run: Run, waiting: str, *, arguments: list[str], words: str, status: int) -> None:
    result = run(*(waiting if argument == "JOB" else argument for argument in arguments))
    assert result.exit_code == status, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_keys_say_whether_they_are_admin_keys(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_GATEWAY_KEY_PEPPER", "a pepper of some length")
    file = str(tmp_path / "keys.json")
    assert json.loads(run("keys", "create", "--admin", "--file", file, "--json").stdout)["admin"] is True
    run("keys", "create", "--tenant", "b", "--file", file)
    assert [item["admin"] for item in json.loads(run("keys", "list", "--file", file, "--json").stdout)] == [True, False]
    assert "submit,read,feed,admin" in run("keys", "list", "--file", file).stdout


def test_explain(run: Run, waiting: str) -> None:
    run("pause", waiting)
    told = run("explain", waiting)
    assert told.exit_code == 0, told.stderr
    assert "waits for            paused" in told.stdout
    assert "to change it" in told.stdout
    assert json.loads(run("explain", waiting, "--json").stdout)["cause"] == "WAIT_CAUSE_PAUSED"


def test_delete(run: Run, service: Service) -> None:
    with Client(service.address, service.key) as client:
        jobs = [client.submit(["a"], model=service.model) for _ in range(2)]
        for job in jobs:
            job.wait(timeout=30)
    assert "its data is removed at 20" in run("delete", jobs[0].name).stdout
    assert set(json.loads(run("delete", jobs[1].name, "--json").stdout)) == {"name", "purge_time"}
    assert run("show", jobs[0].name).exit_code == 3
