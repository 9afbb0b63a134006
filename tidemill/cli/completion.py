"""What the shell offers for a word: names of jobs and models, if the service answers within a second."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemill.client import Client

_PATIENCE_SECONDS = 1.0
_OFFERED = 50

Offer = tuple[str, str]
"""A word and a few words about it."""


def complete_job(incomplete: str) -> list[Offer]:
    """The newest jobs by their ULID, or by their full name where that was begun."""

    def offers(client: "Client") -> Iterator[Offer]:
        from tidemill.client import state_name

        for job in islice(client.jobs(page_size=_OFFERED), _OFFERED):
            name = job.name if "/" in incomplete else job.name.rpartition("/")[2]
            yield name, f"{state_name(job)} {job.model}"

    return _ask(offers, incomplete)


def complete_model(incomplete: str) -> list[Offer]:
    """The models that workers offer."""

    def offers(client: "Client") -> Iterator[Offer]:
        from tidemill.v1.model_service_pb2 import ModelState

        for model in client.models():
            yield model.name.removeprefix("models/"), ModelState.Name(model.state).removeprefix("MODEL_STATE_")

    return _ask(offers, incomplete)


def _ask(offers: Callable[["Client"], Iterator[Offer]], incomplete: str) -> list[Offer]:
    from tidemill.client import Client
    from tidemill.errors import TidemillError

    try:
        with Client(patience=_PATIENCE_SECONDS) as client:
            return [offer for offer in offers(client) if offer[0].startswith(incomplete)]
    except TidemillError:
        # A shell that waits for a word is no place for an error.
        return []
