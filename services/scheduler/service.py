"""`SchedulerService`: the RPC handlers are thin; decisions are in `core`, durability in the engine."""

from services.scheduler.job_calls import JobCalls
from services.scheduler.model_calls import ModelCalls
from services.scheduler.outlook_calls import OutlookCalls
from services.scheduler.quota_calls import QuotaCalls
from services.scheduler.read_calls import ReadCalls
from services.scheduler.shell import Shell
from services.scheduler.steering_calls import SteeringCalls
from services.scheduler.work_calls import WorkCalls
from tidemill.internal.v1 import scheduler_service_pb2_grpc

NAME = "tidemill.internal.v1.SchedulerService"


class SchedulerService(
    JobCalls,
    ModelCalls,
    OutlookCalls,
    QuotaCalls,
    ReadCalls,
    SteeringCalls,
    WorkCalls,
    scheduler_service_pb2_grpc.SchedulerServiceServicer,
):
    """All RPCs."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
