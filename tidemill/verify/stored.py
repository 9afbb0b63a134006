"""Which fault a failed read of the object store is."""

from tidemill.errors import Reason, TidemillError
from tidemill.store import ObjectStore
from tidemill.verify.report import Fault


def fault_of(store: ObjectStore, key: str, exc: Exception) -> Fault:
    """Missing, changed or unreadable; a store that is away is no fault of the dataset and is raised again."""
    if isinstance(exc, TidemillError):
        if exc.reason is not Reason.DATA_CORRUPT:
            raise exc
        if "expected" in exc.metadata:
            return Fault.SEGMENT_CHANGED if store.exists(key) else Fault.SEGMENT_MISSING
        if not store.exists(key):
            return Fault.SEGMENT_MISSING
    return Fault.SEGMENT_UNREADABLE
