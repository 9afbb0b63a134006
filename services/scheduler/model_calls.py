"""The RPCs about models."""

# ruff: noqa: N802, ARG002 - names and signatures are those of the generated servicer

from typing import Any

import grpc.aio

from services.scheduler.core import models
from services.scheduler.engine import Turn
from services.scheduler.shell import Shell
from tidemill.internal.v1 import scheduler_service_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]


class ModelCalls:
    """List, drain, pin."""

    _shell: Shell

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """The models that live workers offer."""
        offered = self._shell.workers.models(self._shell.clock.monotonic())

        def step(turn: Turn) -> pb.ListModelsResponse:
            return pb.ListModelsResponse(
                models=[report for report, _ in offered],
                workers=[workers for _, workers in offered],
                statuses=[models.model_status(turn.state, report.model) for report, _ in offered],
            )

        return await self._shell.engine.execute(step)

    async def ChangeModel(self, request: pb.ChangeModelRequest, context: Context) -> pb.ModelStatus:
        """Drain, undrain, pin or unpin a model."""
        offered = self._shell.workers.offers(request.model, self._shell.clock.monotonic())

        def step(turn: Turn) -> pb.ModelStatus:
            turn.record(models.change_model(turn.state, request, offered))
            return models.model_status(turn.state, request.model)

        return await self._shell.engine.execute(step)
