"""What each RPC needs and does: the one table of scopes, and of what the audit log holds."""

from dataclasses import dataclass

from tidemill.keys import Scope


@dataclass(frozen=True)
class Rule:
    """An RPC's scope, and whether it changes anything."""

    scope: Scope
    mutates: bool


_READS = Rule(Scope.READ, mutates=False)
_SUBMITS = Rule(Scope.SUBMIT, mutates=True)
_OPERATES = Rule(Scope.ADMIN, mutates=True)

RULES: dict[str, Rule] = {
    "tidemill.v1.JobService/CreateJob": _SUBMITS,
    "tidemill.v1.JobService/AppendRows": _SUBMITS,
    "tidemill.v1.JobService/AppendRowsOnce": _SUBMITS,
    "tidemill.v1.JobService/SealJob": _SUBMITS,
    "tidemill.v1.JobService/SubmitJob": _SUBMITS,
    "tidemill.v1.JobService/ImportRows": _SUBMITS,
    "tidemill.v1.JobService/GetJob": _READS,
    "tidemill.v1.JobService/ListJobs": _READS,
    "tidemill.v1.JobService/CancelJob": _SUBMITS,
    "tidemill.v1.JobService/WatchJob": _READS,
    "tidemill.v1.JobService/ReadResults": _READS,
    # It changes nothing in the job, but writes files where it is told to.
    "tidemill.v1.JobService/ExportResults": Rule(Scope.READ, mutates=True),
    "tidemill.v1.JobService/ListCompletions": Rule(Scope.FEED, mutates=False),
    "tidemill.v1.JobService/PauseJob": _SUBMITS,
    "tidemill.v1.JobService/ResumeJob": _SUBMITS,
    "tidemill.v1.JobService/UpdateJob": _SUBMITS,
    "tidemill.v1.JobService/DeleteJob": _SUBMITS,
    "tidemill.v1.JobService/RetryFailedRows": _SUBMITS,
    "tidemill.v1.JobService/ReplayRows": _SUBMITS,
    "tidemill.v1.JobService/EstimateJob": _READS,
    "tidemill.v1.JobService/ExplainJob": _READS,
    "tidemill.v1.JobService/GetRowProvenance": _READS,
    "tidemill.v1.ModelService/ListModels": _READS,
    "tidemill.v1.ModelService/GetModel": _READS,
    "tidemill.v1.ModelService/DrainModel": _OPERATES,
    "tidemill.v1.ModelService/UndrainModel": _OPERATES,
    "tidemill.v1.ModelService/PinModel": _OPERATES,
    "tidemill.v1.ModelService/UnpinModel": _OPERATES,
    "tidemill.v1.AdminService/RequeueChunk": _OPERATES,
    "tidemill.v1.AdminService/ForceFailJob": _OPERATES,
    "tidemill.v1.QuotaService/GetQuota": _READS,
}


def rule_of(method: str) -> Rule:
    """The rule of `package.Service/Method`; one that nobody wrote down is the operator's alone."""
    return RULES.get(method, _OPERATES)
