"""Files whose digest was checked lately: a segment is hashed once in a while, not once for each of its chunks."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from tidemill.store import ObjectStore

__all__ = ["CheckedFiles"]

_REMEMBERED_SECONDS = 300.0
_REMEMBERED_FILES = 4096


class CheckedFiles:
    """Digests of files of a store, remembered for five minutes; called from any thread.

    This still catches what was changed, cut or exchanged before its first chunk. What changes within the five minutes
    is caught row by row, since each request is compared with the digest under which its row was accepted, or fails to
    be read; and closing a job hashes each of its segments again, whatever is remembered here.

    Args:
        clock: in seconds.
    """

    def __init__(self, store: ObjectStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._until: OrderedDict[tuple[str, bytes], float] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, key: str, sha256: bytes) -> None:
        """Raises as `ObjectStore.verify` does, unless this file was found sound lately."""
        name = key, sha256
        with self._lock:
            if self._until.get(name, 0.0) > self._clock():
                self._until.move_to_end(name)
                return
        self._store.verify(key, sha256)
        with self._lock:
            self._until[name] = self._clock() + _REMEMBERED_SECONDS
            self._until.move_to_end(name)
            while len(self._until) > _REMEMBERED_FILES:
                self._until.popitem(last=False)
