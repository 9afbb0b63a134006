"""What was asked and what was answered."""

from collections.abc import Iterator

import dagster as dg

from dagster_defs.defs.partitions import datasets
from dagster_defs.lib.gateway import TidemillGateway
from dagster_defs.lib.partitions import dataset_name
from dagster_defs.lib.submission import Batch, request_id, submit_messages
from dagster_defs.lib.versions import OUTPUTS, PROMPTS

GROUP = "inference"
OWNERS = ["team:inference"]

prompts = dg.AssetSpec(
    PROMPTS,
    description=(
        "The rows that people and programs sent to Tidemill to be answered. A partition is one dataset; each job that "
        "is accepted for it shows up here as an observation, whose data version is the SHA-256 of the rows. New rows "
        "mark the dataset's `outputs` as out of date until they are answered."
    ),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    partitions_def=datasets,
)


@dg.asset(
    key=OUTPUTS,
    deps=[prompts],
    description=(
        "The model's answers, one for each row of `prompts`. Each job that answered all of its rows is a new version "
        "of its dataset, named by the SHA-256 of its content: equal answers have equal versions, however long they "
        "took. A version tells the model and engine that answered, the rows and tokens, whether the deadline held, a "
        "few sample rows, where the answers lie and the trace of the job. A job that was cancelled, expired or failed "
        "appears as an observation; its finished rows are kept, the dataset's version stays.\n\n"
        "Materializing a partition sends the prompts of the run's configuration to Tidemill and ends once they are "
        "accepted. The answers are recorded by the `completions` sensor, as for every other job."
    ),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"ray", "vllm"},
    partitions_def=datasets,
    output_required=False,
)
def outputs(context: dg.AssetExecutionContext, config: Batch, gateway: TidemillGateway) -> "Iterator[dg.Output[None]]":
    """Submit a batch; yields nothing, since only finished answers are a version of the dataset."""
    run, partition = context.run, context.partition_key
    key = request_id(run.root_run_id or run.run_id, OUTPUTS.to_user_string(), partition)
    job = gateway.submit_job(submit_messages(config, dataset_name(partition), run.run_id, key))
    context.log.info(
        f"{job.name} was accepted with {job.row_counts.total} rows; the completions sensor reports its answers"
    )
    yield from ()
