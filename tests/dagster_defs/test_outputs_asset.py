"""Materialising `outputs` in Dagster submits a batch and reports nothing by itself."""

import dagster as dg
import pytest

from dagster_defs.defs.assets import outputs, prompts
from dagster_defs.defs.partitions import DATASETS
from dagster_defs.lib.gateway import TidemillGateway
from dagster_defs.lib.submission import Batch, request_id
from tests.dagster_defs.fakes import API_KEY, FakeGateway
from tests.dagster_defs.stored import materializations


def _materialize(
    instance: dg.DagsterInstance, gateway: TidemillGateway, raise_on_error: bool = True
) -> dg.ExecuteInProcessResult:
    instance.add_dynamic_partitions(DATASETS, ["my%20set"])
    batch = Batch(model="tiny", prompts=["one", "two"], max_tokens=8, completion_window_minutes=5)
    return dg.materialize(
        [prompts, outputs],
        partition_key="my%20set",
        instance=instance,
        resources={"gateway": gateway},
        run_config=dg.RunConfig({"outputs": batch}),
        raise_on_error=raise_on_error,
    )


def test_run_submits_its_prompts_and_reports_nothing(
    instance: dg.DagsterInstance, gateway: TidemillGateway, fake_gateway: FakeGateway
) -> None:
    result = _materialize(instance, gateway)
    [(key, (job, rows))] = fake_gateway.submitted.items()
    assert result.success
    assert not materializations(instance)
    assert key == request_id(result.run_id, "outputs", "my%20set")
    assert (job.model, job.dataset, job.origin_run_id) == ("tiny", "my set", result.run_id)
    assert (job.completion_window.seconds, job.sampling.max_tokens, job.sampling.temperature) == (300, 8, 0)
    assert [(row.custom_id, row.chat.messages[0].content) for row in rows] == [("row-0", "one"), ("row-1", "two")]


def test_refused_submission_fails_the_run(instance: dg.DagsterInstance, gateway: TidemillGateway) -> None:
    wrong = TidemillGateway(address=gateway.address, api_key="tm_wrong")
    assert not _materialize(instance, wrong, raise_on_error=False).success


def test_retries_share_a_request_id() -> None:
    assert request_id("root", "outputs", "a") == request_id("root", "outputs", "a")
    assert (
        len({request_id("root", "outputs", "a"), request_id("root", "outputs", "b"), request_id("r", "outputs", "a")})
        == 3
    )


def test_batch_needs_a_prompt() -> None:
    with pytest.raises(ValueError, match="prompts"):
        Batch(model="tiny", prompts=[])


def test_key_is_not_shown_in_the_ui(monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_defs.defs.resources import resources

    shown = str(resources().resources)
    assert API_KEY not in shown
