"""`ListModels` and `GetModel`: what live workers offer; and the operator's verbs over models."""

from services.gateway.page_size import checked_page_size
from services.gateway.page_tokens import PageTokens
from services.gateway.scheduler import Scheduler
from services.gateway.tasks import tasks_of
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2
from tidemill.names import parse_model
from tidemill.v1 import model_service_pb2

_LARGEST_PAGE = 1000
_QUERY = ("models",)


class Models:
    """Models as resources."""

    def __init__(self, scheduler: Scheduler, tokens: PageTokens) -> None:
        self._scheduler = scheduler
        self._tokens = tokens

    async def list(self, request: model_service_pb2.ListModelsRequest) -> model_service_pb2.ListModelsResponse:
        """A page of the models, by name."""
        size = checked_page_size(request.page_size, "page_size", _LARGEST_PAGE, _LARGEST_PAGE)
        after = self._tokens.open(_QUERY, request.page_token)
        known = await self._scheduler.list_models()
        models = [model for model in _public_models(known) if model.name.removeprefix("models/") > after]
        response = model_service_pb2.ListModelsResponse(models=models[:size])
        if len(models) > size:
            response.next_page_token = self._tokens.seal(_QUERY, models[size - 1].name.removeprefix("models/"))
        return response

    async def get(self, name: str) -> model_service_pb2.Model:
        """One model; MODEL_NOT_FOUND when no live worker offers it."""
        model = parse_model(name)
        for known in _public_models(await self._scheduler.list_models()):
            if known.name == name:
                return known
        raise TidemillError(
            Reason.MODEL_NOT_FOUND,
            f"no worker offers model {model!r}; ListModels prints the available ones",
            metadata={"model": model},
        )

    async def change(
        self, name: str, *, drained: bool | None = None, pinned: bool | None = None
    ) -> model_service_pb2.Model:
        """Drain, undrain, pin or unpin a model. What is None stays."""
        request = scheduler_service_pb2.ChangeModelRequest(model=parse_model(name), drained=drained, pinned=pinned)
        status = await self._scheduler.change_model(request)
        known = {model.name: model for model in _public_models(await self._scheduler.list_models())}
        # A model whose workers are away for the moment has flags all the same.
        return known.get(name) or _public_model(records_pb2.ModelReport(model=status.model), 0, status)


def _public_models(known: scheduler_service_pb2.ListModelsResponse) -> list[model_service_pb2.Model]:
    statuses = {status.model: status for status in known.statuses}
    pairs = sorted(zip(known.models, known.workers, strict=True), key=lambda pair: pair[0].model)
    unknown = scheduler_service_pb2.ModelStatus()
    return [_public_model(report, workers, statuses.get(report.model, unknown)) for report, workers in pairs]


def _public_model(
    report: records_pb2.ModelReport, workers: int, status: scheduler_service_pb2.ModelStatus
) -> model_service_pb2.Model:
    return model_service_pb2.Model(
        name=f"models/{report.model}",
        state=report.state,
        max_model_len=report.max_model_len,
        digest=report.digest,
        engine_build=report.engine_build,
        workers=workers,
        message=report.message,
        drained=status.drained,
        pinned=status.pinned,
        load_seconds=report.load_seconds,
        tokens_per_second=status.tokens_per_second,
        chunks_leased=status.chunks_leased,
        replicas=report.replicas,
        engine_deaths=report.engine_deaths,
        tasks=sorted(tasks_of(report)),
    )
