"""What an operator sets on a model: drained, pinned."""

from services.scheduler.core.checks import require_text
from services.scheduler.core.estimates import model_rate
from services.scheduler.core.records import ModelFlags
from services.scheduler.core.state import State
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2, scheduler_service_pb2

Events = list[ledger_pb2.LedgerEvent]


def change_model(state: State, request: scheduler_service_pb2.ChangeModelRequest, offered: bool) -> Events:
    """Drain, undrain, pin or unpin a model; no event when nothing changes.

    Args:
        state: not changed.
        request: the flags that are set change, the others stay.
        offered: whether a live worker offers the model.

    Raises:
        TidemillError: MODEL_NOT_FOUND where no job and no worker knows the model; INVALID_ARGUMENT.
    """
    require_text(request.model, "model")
    if not offered and not is_known(state, request.model):
        raise TidemillError(
            Reason.MODEL_NOT_FOUND,
            f"model {request.model} is unknown: no job asks for it and no worker offers it; see ListModels",
            metadata={"model": request.model},
        )
    before = flags(state, request.model)
    drained = request.drained if request.HasField("drained") else before.drained
    pinned = request.pinned if request.HasField("pinned") else before.pinned
    if ModelFlags(drained, pinned) == before:
        return []
    changed = ledger_pb2.ModelChanged(model=request.model, drained=drained, pinned=pinned)
    return [ledger_pb2.LedgerEvent(model_changed=changed)]


def is_known(state: State, model: str) -> bool:
    """Whether a job, a commit or an operator named the model before."""
    return model in state.models or model in state.paces or any(model == key[1] for key in state.counts)


def flags(state: State, model: str) -> ModelFlags:
    """What is set on the model."""
    return state.models.get(model, ModelFlags())


def model_status(state: State, model: str) -> scheduler_service_pb2.ModelStatus:
    """What the scheduler knows of a model beside the workers' reports."""
    own = flags(state, model)
    return scheduler_service_pb2.ModelStatus(
        model=model,
        drained=own.drained,
        pinned=own.pinned,
        tokens_per_second=model_rate(state, model) or 0.0,
        chunks_leased=state.in_flight.by_model.get(model, 0),
    )


def pinned_models(state: State) -> list[str]:
    """Models that stay loaded, by name."""
    return sorted(model for model, own in state.models.items() if own.pinned)


def drained_models(state: State) -> list[str]:
    """Models that get no new lease, by name."""
    return sorted(model for model, own in state.models.items() if own.drained)


def model_changed(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """Fold: the flags are these."""
    changed = event.model_changed
    if changed.drained or changed.pinned:
        state.models[changed.model] = ModelFlags(changed.drained, changed.pinned)
    else:
        state.models.pop(changed.model, None)
