"""`SchedulerService` of a process that may or may not lead: each call goes to the scheduler that leads now."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from services.scheduler.service import SchedulerService
from tidemill.internal.v1 import scheduler_service_pb2 as pb

_METHODS = pb.DESCRIPTOR.services_by_name["SchedulerService"].methods


class RoutedService:
    """All RPCs of the service; `leading` gives the scheduler that leads here, or raises NOT_LEADER."""

    def __init__(self, leading: Callable[[], SchedulerService]) -> None:
        for method in _METHODS:
            route = _stream if method.server_streaming else _unary
            setattr(self, method.name, route(method.name, leading))


def _unary(name: str, leading: Callable[[], SchedulerService]) -> Any:
    async def handle(request: Any, context: Any) -> Any:
        return await getattr(leading(), name)(request, context)

    return handle


def _stream(name: str, leading: Callable[[], SchedulerService]) -> Any:
    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        async for response in getattr(leading(), name)(request, context):
            yield response

    return handle
