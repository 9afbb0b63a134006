"""The command against a real service."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.client.service import Service
from tidemill.client import Client

PLAIN = "".join(json.dumps({"prompt": f"say {number}"}) + "\n" for number in range(120))
BODY = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0}
CHAT = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": BODY}


@pytest.fixture
def plain(tmp_path: Path) -> str:
    path = tmp_path / "plain.jsonl"
    path.write_text(PLAIN)
    return str(path)


def last_job(service: Service) -> str:
    with Client(service.address, service.key) as client:
        return next(client.jobs()).name


def test_submit_writes_answers_to_standard_output(run: Run, service: Service, plain: str) -> None:
    result = run("submit", plain, "--model", service.model, "--deadline", "2h", "--sampling", "max_tokens=9")
    assert result.exit_code == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["custom_id"] for answer in answers] == [f"row-{number}" for number in range(1, 121)]
    assert answers[4]["response"]["body"]["choices"][0]["text"] == "answer to row-5"
    assert answers[4]["response"]["body"]["object"] == "text_completion"
    assert "SUCCEEDED" in result.stderr
    assert "120/120 rows" in result.stderr
    shown = json.loads(run("show", last_job(service), "--json").stdout)
    assert shown["sampling"] == {"max_tokens": 9}


def test_submit_writes_a_file_when_all_is_there(run: Run, service: Service, tmp_path: Path, plain: str) -> None:
    output = tmp_path / "out.jsonl"
    result = run("submit", plain, "-m", service.model, "-o", str(output), "--label", "team=a", "--dataset", "d")
    assert (result.exit_code, result.stdout) == (0, "")
    assert len(output.read_text().splitlines()) == 120
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["out.jsonl", "plain.jsonl"]
    shown = json.loads(run("show", last_job(service), "--json").stdout)
    assert shown["labels"]["team"] == "a"
    assert shown["dataset"] == "d"


def test_mixed_files_are_answered_in_the_shape_of_each_row(run: Run, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text(json.dumps(CHAT) + '\n{"prompt": "p"}\n')
    result = run("submit", str(path), "-m", service.model)
    objects = [json.loads(line)["response"]["body"]["object"] for line in result.stdout.splitlines()]
    assert objects == ["chat.completion", "text_completion"]


def test_every_kind_of_row_is_answered_in_kind(run: Run, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "kinds.jsonl"
    lines = [
        {"embed": "four", "dimensions": 2},
        {"classify": "x"},
        {"query": "a", "document": "bcd"},
        {"custom_id": "b", "method": "POST", "url": "/v1/embeddings", "body": {"input": "abc"}},
        {"prompt": "p", "n": 2, "logprobs": 1, "max_tokens": 5},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    result = run("submit", str(path), "-m", service.model)
    assert result.exit_code == 0, result.stderr
    vector, classes, score, other, text = (json.loads(line)["response"]["body"] for line in result.stdout.splitlines())
    assert vector["data"] == [{"object": "embedding", "index": 0, "embedding": [4.0, 0.5]}]
    assert classes["data"][0]["label"] == "long"
    assert score["data"][0]["score"] == 0.25
    assert other["data"][0]["embedding"] == [3.0, 0.5, 0.5, 0.5]
    assert [choice["index"] for choice in text["choices"]] == [0, 1]
    assert text["choices"][1]["logprobs"]["tokens"] == ["answer", "to", "row-5"]


def test_a_kind_that_the_model_has_not_is_refused_by_its_line(run: Run, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "embed.jsonl"
    path.write_text('{"prompt": "p"}\n\n{"embed": "x"}\n')
    result = run("submit", str(path), "-m", service.idle_model())
    assert result.exit_code == 2
    assert "embed.jsonl line 3" in result.stderr
    assert "it can generate" in result.stderr


def test_a_schema_for_all_rows(run: Run, service: Service, plain: str) -> None:
    good = run("submit", plain, "-m", service.model, "-s", 'json_schema={"type": "object"}', "--no-wait")
    assert good.exit_code == 0, good.stderr
    shown = json.loads(run("show", good.stdout.strip(), "--json").stdout)
    assert shown["sampling"]["json_schema"] == '{"type":"object"}'
    bad = run("submit", plain, "-m", service.model, "-s", 'json_schema={"type": "objekt"}')
    assert bad.exit_code == 2
    assert "at /type" in bad.stderr


def test_the_model_may_come_from_the_file(run: Run, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({**CHAT, "body": {**BODY, "model": service.model}}))
    assert run("submit", str(path)).exit_code == 0


def test_standard_input_is_sent_as_it_comes(run: Run, service: Service) -> None:
    result = run("submit", "-", "--model", service.model, stdin=PLAIN)
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == 120


def test_a_fault_on_standard_input_cancels_the_job(run: Run, service: Service) -> None:
    result = run("submit", "-", "--model", service.model, stdin=PLAIN + "nonsense\n")
    assert result.exit_code == 2
    assert "stdin line 121: is not JSON" in result.stderr
    assert "was cancelled" in result.stderr
    mixed = run("submit", "-", "--model", service.model, stdin=PLAIN + json.dumps(CHAT))
    assert mixed.exit_code == 2
    assert "stdin line 121: rows of several kinds are mixed" in mixed.stderr


def test_submit_without_waiting_then_the_other_commands(run: Run, service: Service, plain: str) -> None:
    submitted = run("submit", plain, "-m", service.model, "--no-wait")
    name = submitted.stdout.strip()
    assert name.startswith("tenants/dev/jobs/")
    watched = run("watch", name)
    assert watched.exit_code == 0
    assert "SUCCEEDED" in watched.stderr
    snapshots = [json.loads(line) for line in run("watch", name, "--json").stdout.splitlines()]
    assert snapshots[-1]["state"] == "JOB_STATE_SUCCEEDED"
    answers = run("results", name)
    assert len(answers.stdout.splitlines()) == 120
    assert json.loads(answers.stdout.splitlines()[0])["response"]["body"]["object"] == "text_completion"
    as_chat = run("results", name, "--endpoint", "chat", "--order", "completion", "--follow")
    assert json.loads(as_chat.stdout.splitlines()[0])["response"]["body"]["object"] == "chat.completion"
    assert name.rpartition("/")[2] in run("jobs").stdout
    assert json.loads(run("jobs", "--json", "--limit", "1").stdout)[0]["name"] == name
    label = "tidemill-endpoint=completions"
    named = json.loads(run("jobs", "--json", "--model", service.model, "--label", label).stdout)
    assert named[0]["name"] == name
    assert json.loads(run("jobs", "--json", "--label", "tidemill-endpoint=none").stdout) == []
    assert "row_counts.succeeded" in run("show", name.rpartition("/")[2]).stdout
    assert run("cancel", name).exit_code == 3


def test_a_repeated_request_id_goes_on_with_its_job(run: Run, service: Service, plain: str) -> None:
    first = run("submit", plain, "-m", service.model, "--request-id", "again", "--no-wait", "--json")
    again = run("submit", plain, "-m", service.model, "--request-id", "again")
    assert again.exit_code == 0
    assert json.loads(first.stdout)["name"] in again.stderr
    assert len(again.stdout.splitlines()) == 120


def test_cancel(run: Run, service: Service) -> None:
    with Client(service.address, service.key) as client:
        handle, _ = client.create(client.new_job(model=service.model))
    assert "CANCEL" in run("cancel", handle.name).stdout
    watched = run("watch", handle.name)
    assert watched.exit_code == 1
    assert "the job ended CANCELLED" in watched.stderr


def test_a_row_that_the_gateway_refuses_is_named_by_its_line(run: Run, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n\n' + json.dumps({"prompt": "\u00e9" * 3000}) + "\n")
    result = run("submit", str(path), "-m", service.model)
    assert result.exit_code == 2
    assert "in.jsonl line 3: row 1 ('row-3'), prompt: " in result.stderr
    assert "was cancelled" in result.stderr


def test_a_bad_line_stops_before_anything_is_sent(run: Run, service: Service, tmp_path: Path) -> None:
    before = last_job(service)
    path = tmp_path / "in.jsonl"
    path.write_text(PLAIN + '{"prompt": "a", "temperature": "hot"}\n')
    result = run("submit", str(path), "-m", service.model)
    assert result.exit_code == 2
    assert 'in.jsonl line 121, "temperature": must be a number' in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert last_job(service) == before


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["--model", "no-such"], "no-such", 3),
        (["--deadline", "soon"], "is not a duration", 2),
        (["--sampling", "temperature=hot"], "must be a number", 2),
        (["--sampling", "temperature=3"], "at most 2", 2),
        (["--sampling", "what=1"], "not a supported parameter", 2),
        (["--sampling", "temperature"], "KEY=VALUE", 2),
        (["--label", "a=1", "--label", "a=2"], "given twice", 2),
        (["--execution", "fast"], "shared", 2),
        (["--output", "/nonexistent/out.jsonl"], "cannot write", 2),
    ],
)
def test_bad_options(run: Run, service: Service, plain: str, *, arguments: list[str], words: str, status: int) -> None:
    result = run("submit", plain, "--model", service.model, *arguments)
    assert result.exit_code == status, result.stderr
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output


def test_a_wrong_key_and_none(run: Run, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_API_KEY", "wrong")
    assert run("jobs").exit_code == 3
    monkeypatch.delenv("TIDEMILL_API_KEY")
    result = run("jobs")
    assert result.exit_code == 3
    assert "TIDEMILL_API_KEY" in result.stderr


def test_another_tenant_s_job(run: Run, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    name = last_job(service)
    monkeypatch.setenv("TIDEMILL_API_KEY", service.key_of("other"))
    for command in ("show", "watch", "results", "cancel"):
        result = run(command, name)
        assert result.exit_code == 3, command
        assert len(result.stderr.strip().splitlines()) == 1


def test_models(run: Run, service: Service) -> None:
    assert service.model in run("models", "list").stdout
    [model] = [item for item in json.loads(run("models", "list", "--json").stdout) if service.model in item["name"]]
    assert model["state"] == "MODEL_STATE_LOADED"


def test_metrics_of_named_processes(run: Run, service: Service) -> None:
    address = service.stack.ready["gateway"]["http_address"]
    figures = json.loads(run("metrics", "--json", "--address", address).stdout)
    calls = figures[address]["tidemill_rpc"]
    assert any(item["value"] > 0 and item["labels"]["method"].endswith("CreateJob") for item in calls)
    assert "tidemill_rpc_total{" in run("metrics", "--address", address).stdout
    dead = run("metrics", "--json", "--address", "127.0.0.1:1")
    assert dead.exit_code == 3


def test_doctor_finds_the_service(run: Run, service: Service) -> None:
    result = run("doctor", "--json")
    findings = {item["name"]: item for item in json.loads(result.stdout)["findings"]}
    assert findings["gateway"]["level"] == "ok"
    assert service.model in findings["models"]["found"]
