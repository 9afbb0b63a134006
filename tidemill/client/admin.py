"""The operator's calls; each needs an admin key (`tidemill keys create --admin`)."""

from typing import Any

from tidemill.client.transport import Transport
from tidemill.v1 import admin_service_pb2, job_pb2, model_service_pb2

pb = model_service_pb2


class Admin:
    """Reach it as `Client.admin`. Without an admin key every method raises PERMISSION_DENIED."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def requeue_chunk(self, job: str, row_index: int) -> job_pb2.Job:
        """Take the chunk that holds a row from its worker; CHUNK_NOT_LEASED when no worker has it."""
        request = admin_service_pb2.RequeueChunkRequest(name=job, row_index=row_index)
        return self._transport.call(self._transport.admin.RequeueChunk, request)

    def force_fail(self, job: str, message: str) -> job_pb2.Job:
        """End a job of any tenant as FAILED; `message` tells its owner why. Its finished rows stay."""
        request = admin_service_pb2.ForceFailJobRequest(name=job, message=message)
        return self._transport.call(self._transport.admin.ForceFailJob, request)

    def drain(self, model: str) -> model_service_pb2.Model:
        """Give a model no new work; it leaves the workers' memory once its chunks are done."""
        return self._change(self._transport.models.DrainModel, pb.DrainModelRequest(name=_name(model)))

    def undrain(self, model: str) -> model_service_pb2.Model:
        """End a drain."""
        return self._change(self._transport.models.UndrainModel, pb.UndrainModelRequest(name=_name(model)))

    def pin(self, model: str) -> model_service_pb2.Model:
        """Keep a model loaded at the workers that offer it."""
        return self._change(self._transport.models.PinModel, pb.PinModelRequest(name=_name(model)))

    def unpin(self, model: str) -> model_service_pb2.Model:
        """End a pin."""
        return self._change(self._transport.models.UnpinModel, pb.UnpinModelRequest(name=_name(model)))

    def _change(self, method: Any, request: Any) -> model_service_pb2.Model:
        return self._transport.call(method, request)


def _name(model: str) -> str:
    return f"models/{model}"
