"""A TCP proxy that cuts connections after a number of bytes, wherever that is."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable
from typing import Self

_RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Forwards connections on loopback to `target`; each is cut after so many bytes, both ways together, as
    `allowances` gives for it, and none once those are used up.

    Attributes:
        address: where it listens.
        cuts: connections cut so far.
    """

    def __init__(self, target: str, allowances: Iterable[int]) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._allowances = iter(allowances)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone would not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                left = next(self._allowances, None)
            connection = _Connection(near, socket.create_connection(self._target), left)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: "_Connection") -> None:
        connection.run()
        with self._lock:
            self.cuts += connection.was_cut


class _Connection:
    """Two sockets and what may still pass between them; None is without a limit."""

    def __init__(self, near: socket.socket, far: socket.socket, left: int | None) -> None:
        self.was_cut = False
        self._ends = (near, far)
        self._left = left
        self._lock = threading.Lock()

    def run(self) -> None:
        """Forward until an end closes or nothing more may pass."""
        near, far = self._ends
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far)
        back.join()
        for end in self._ends:
            end.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16 << 10):
                allowed = self._allowed(len(data))
                sink.sendall(data[:allowed])
                if allowed < len(data):
                    self.was_cut = True
                    break
        self._end()

    def _end(self) -> None:
        near, far = self._ends
        if self.was_cut:
            # The client sees a reset. The server an end: a reset would also take from it what it has not read yet.
            with contextlib.suppress(OSError):
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for end in (near, far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _allowed(self, size: int) -> int:
        with self._lock:
            if self._left is None:
                return size
            allowed = min(size, self._left)
            self._left -= allowed
            return allowed
