"""`ListModels`: what live workers offer."""

from services.gateway.page_size import checked_page_size
from services.gateway.page_tokens import PageTokens
from services.gateway.scheduler import Scheduler
from tidemill.internal.v1 import records_pb2
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
        pairs = sorted(zip(known.models, known.workers, strict=True), key=lambda pair: pair[0].model)
        models = [_public_model(report, workers) for report, workers in pairs if report.model > after]
        response = model_service_pb2.ListModelsResponse(models=models[:size])
        if len(models) > size:
            response.next_page_token = self._tokens.seal(_QUERY, models[size - 1].name.removeprefix("models/"))
        return response


def _public_model(report: records_pb2.ModelReport, workers: int) -> model_service_pb2.Model:
    return model_service_pb2.Model(
        name=f"models/{report.model}",
        state=report.state,
        max_model_len=report.max_model_len,
        digest=report.digest,
        engine_build=report.engine_build,
        workers=workers,
        message=report.message,
    )
