"""Ports on loopback: the default one, or the next that is free."""

import socket
from collections.abc import Iterable

from tidemill.errors import Reason, TidemillError
from tidemill.preflight import PORTS

HOST = "127.0.0.1"
_TRIES = 200


def choose_ports(*, any_port: bool = False) -> dict[str, int]:
    """A free port for each name in `preflight.PORTS`, all different; with `any_port` the system chooses them."""
    chosen: dict[str, int] = {}
    for name, default in PORTS.items():
        chosen[name] = _free_port(0 if any_port else default, set(chosen.values()))
    return chosen


def free_ports(names: Iterable[str]) -> dict[str, int]:
    """A port that the system chooses for each name, all different."""
    chosen: dict[str, int] = {}
    for name in names:
        chosen[name] = _free_port(0, set(chosen.values()))
    return chosen


def _free_port(first: int, taken: set[int]) -> int:
    for port in range(first, first + _TRIES) if first else [0] * _TRIES:
        if port in taken:
            continue
        with socket.socket() as probe:
            # As the servers do it, so that a port in TIME_WAIT counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            if (free := probe.getsockname()[1]) not in taken:
                return free
    raise TidemillError(Reason.UNAVAILABLE, f"no free port from {first} on; end what listens there")
