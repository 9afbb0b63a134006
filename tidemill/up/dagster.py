"""What the demo asks of the running Dagster webserver."""

from typing import Any
from urllib.parse import quote

from tidemill.up.health import graphql
from tidemill.v1 import job_pb2

_JOB_TAG = "tidemill/job_id"
_QUERY = """
query ($dataset: String!) {
  assetOrError(assetKey: {path: ["outputs"]}) {
    ... on Asset { assetMaterializations(partitions: [$dataset], limit: 1000) { tags { key value } } }
  }
}
"""


def count_materializations(http_address: str, job: job_pb2.Job) -> int:
    """How many materialisations of `outputs` Dagster holds for `job`; exactly one is right."""
    data = graphql(http_address, _QUERY, {"dataset": job.dataset}) or {}
    asset: dict[str, Any] = data.get("assetOrError") or {}
    job_id = job.name.rpartition("/")[2]
    wanted = {"key": _JOB_TAG, "value": job_id}
    return sum(wanted in item["tags"] for item in asset.get("assetMaterializations", ()))


def partition_page(http_address: str, job: job_pb2.Job) -> str:
    """Address of the page that shows the job's output dataset."""
    return f"http://{http_address}/assets/outputs?view=partitions&partition={quote(job.dataset, safe='')}"
