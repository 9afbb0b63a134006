"""Tidemill: batch LLM inference with deadlines that hold.

`from tidemill import Client`. The client is imported when it is asked for: each process imports this package and few
need it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.client import AsyncClient, Client
    from tidemill.errors import TidemillError

__all__ = ["AsyncClient", "Client", "TidemillError"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import tidemill.client

    return getattr(tidemill.client, name)
