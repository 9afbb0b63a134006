"""Names at the edge."""

import pytest

from tidemill.errors import Reason, TidemillError
from tidemill.names import JobName, check_tenant, new_job_id, parse_job, parse_model, parse_parent


def test_new_ids_are_ulids_that_sort_by_time() -> None:
    ids = [new_job_id() for _ in range(100)]
    assert len(set(ids)) == len(ids)
    assert [item[:10] for item in ids] == sorted(item[:10] for item in ids)
    name = f"tenants/dev/jobs/{ids[0]}"
    assert parse_job(name) == JobName("dev", ids[0])
    assert str(parse_job(name)) == name
    assert parse_job(name).prefix == f"jobs/dev/{ids[0]}"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "tenants/dev/jobs/",
        "tenants/dev/jobs/short",
        "tenants/../jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "tenants/dev/jobs/81ARZ3NDEKTSV4RRFFQ69G5FAV",
        "tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV/x",
        "tenants/Dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV\n",
    ],
)
def test_malformed_job_names_are_refused(name: str) -> None:
    with pytest.raises(TidemillError) as caught:
        parse_job(name)
    assert caught.value.reason is Reason.INVALID_NAME


@pytest.mark.parametrize("parent", ["", "tenants", "tenants/", "tenants/-a", "jobs/dev", "tenants/" + "a" * 64])
def test_malformed_parents_are_refused(parent: str) -> None:
    with pytest.raises(TidemillError) as caught:
        parse_parent(parent)
    assert caught.value.reason is Reason.INVALID_NAME


def test_parent_gives_its_tenant() -> None:
    assert parse_parent("tenants/team-1") == check_tenant("team-1") == "team-1"


def test_a_model_s_id_may_hold_slashes() -> None:
    assert parse_model("models/Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"


@pytest.mark.parametrize("name", ["", "tiny", "models", "models/", "jobs/tiny", "models/" + "\u00e9" * 129])
def test_malformed_model_names_are_refused(name: str) -> None:
    with pytest.raises(TidemillError) as caught:
        parse_model(name)
    assert caught.value.reason is Reason.INVALID_NAME
