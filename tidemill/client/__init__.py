"""The Python client of Tidemill.

from tidemill import Client

with Client() as client:
    job = client.submit(["Once upon a time", "In the beginning"], model="tiny", deadline="2h")
    for result in job.results():
        print(result.custom_id, result.text)
"""

from tidemill.client.aio_client import AsyncClient
from tidemill.client.aio_job import AsyncJobHandle
from tidemill.client.client import Client
from tidemill.client.cursors import is_terminal, state_name
from tidemill.client.job import JobHandle
from tidemill.client.rows import RowLike
from tidemill.client.sources import RowSource
from tidemill.client.vectors import vector, vectors
from tidemill.errors import Reason, RowsFailedError, RowsRefusedError, TidemillError

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "Client",
    "JobHandle",
    "Reason",
    "RowLike",
    "RowSource",
    "RowsFailedError",
    "RowsRefusedError",
    "TidemillError",
    "is_terminal",
    "state_name",
    "vector",
    "vectors",
]
