"""The code location as Dagster loads it."""

import tomllib
from pathlib import Path

import dagster as dg
import pytest
from pydantic import ValidationError

from dagster_defs import definitions
from dagster_defs.defs.partitions import datasets
from dagster_defs.lib.versions import OUTPUTS, PROMPTS
from dagster_defs.settings import DagsterSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def loaded() -> dg.Definitions:
    return definitions.defs()


def test_definitions_are_valid(loaded: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(loaded)


def test_assets_are_described_for_their_users(loaded: dg.Definitions) -> None:
    specs = {spec.key: spec for spec in loaded.resolve_all_asset_specs()}
    assert set(specs) == {PROMPTS, OUTPUTS}
    for spec in specs.values():
        assert spec.group_name == "inference"
        assert spec.owners == ["team:inference"]
        assert spec.partitions_def == datasets
        assert spec.description
        # A version of the asset's own would mark every output of another model as out of date.
        assert spec.code_version is None
    assert specs[OUTPUTS].kinds == {"ray", "vllm"}
    assert [dep.asset_key for dep in specs[OUTPUTS].deps] == [PROMPTS]


def test_sensor_starts_by_itself(loaded: dg.Definitions) -> None:
    sensor = loaded.resolve_sensor_def("completions")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 5


def test_both_project_files_say_the_same() -> None:
    packaged = tomllib.loads((ROOT / "dagster_defs" / "dg.toml").read_text())
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"] == packaged


def test_trace_template_must_name_the_trace() -> None:
    with pytest.raises(ValidationError, match="trace_id"):
        DagsterSettings(trace_url_template="http://traces/")
