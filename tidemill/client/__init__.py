"""The Python client of Tidemill.

from tidemill.client import Client

with Client() as client:
    job = client.submit(["Once upon a time", "In the beginning"], model="tiny", deadline="2h")
    for result in job.results():
        print(result.custom_id, result.text)
"""

from tidemill.client.client import Client
from tidemill.client.job import JobHandle, is_terminal, state_name
from tidemill.client.rows import RowLike
from tidemill.client.upload import RowsRefusedError
from tidemill.client.vectors import vector, vectors
from tidemill.errors import Reason, TidemillError

__all__ = [
    "Client",
    "JobHandle",
    "Reason",
    "RowLike",
    "RowsRefusedError",
    "TidemillError",
    "is_terminal",
    "state_name",
    "vector",
    "vectors",
]
