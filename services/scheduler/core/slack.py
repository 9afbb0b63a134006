"""How long a job can still wait.

Slack is the time left until the deadline, less the work that remains when as many engines as may work on the job do,
less the loading of its model. A job is urgent while its slack is small against its window, doomed once it is negative.
"""

from math import ceil

from services.scheduler.core.paces import ModelPace
from services.scheduler.core.records import Job
from services.scheduler.core.times import SECOND


def window_ns(job: Job) -> int:
    """From the seal to the deadline; at least a second."""
    return max(SECOND, job.deadline_ns - job.expect_seal().time_ns)


def remaining_ns(job: Job, pace: ModelPace) -> int:
    """Engine time of the rows that miss results; 0 while the model's rate is unknown."""
    rate = pace.rate
    return round(job.missing * job.row_tokens / rate * SECOND) if rate else 0


def latest_start_ns(job: Job, pace: ModelPace, engines: int) -> int:
    """When `engines` engines must have begun to work on nothing else for the deadline to hold."""
    return job.deadline_ns - remaining_ns(job, pace) // max(1, engines)


def parallelism(remaining: int, chunk_ns: int, engines: int, cap: int) -> int:
    """How many engines can share the remaining work: as many as there are, the cap lets, and there are chunks for."""
    return max(1, min(engines, cap, ceil(remaining / chunk_ns)))
