"""The operator's calls; each needs an admin key (`tidemill keys create --admin`)."""

from tidemill.client import calls
from tidemill.client.transport import Transport
from tidemill.v1 import job_pb2, model_service_pb2


class Admin:
    """Reach it as `Client.admin`. Without an admin key every method raises PERMISSION_DENIED."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def requeue_chunk(self, job: str, row_index: int) -> job_pb2.Job:
        """Take the chunk that holds a row from its worker; CHUNK_NOT_LEASED when no worker has it."""
        return self._transport.call(calls.requeue_chunk(job, row_index))

    def force_fail(self, job: str, message: str) -> job_pb2.Job:
        """End a job of any tenant as FAILED; `message` tells its owner why. Its finished rows stay."""
        return self._transport.call(calls.force_fail(job, message))

    def drain(self, model: str) -> model_service_pb2.Model:
        """Give a model no new work; it leaves the workers' memory once its chunks are done."""
        return self._transport.call(calls.drain_model(model))

    def undrain(self, model: str) -> model_service_pb2.Model:
        """End a drain."""
        return self._transport.call(calls.undrain_model(model))

    def pin(self, model: str) -> model_service_pb2.Model:
        """Keep a model loaded at the workers that offer it."""
        return self._transport.call(calls.pin_model(model))

    def unpin(self, model: str) -> model_service_pb2.Model:
        """End a pin."""
        return self._transport.call(calls.unpin_model(model))
