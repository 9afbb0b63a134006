"""Ray as this process wants it: its own small local cluster, or the one it is told to use.

Whoever can call Ray's ports can run code as this user. The local cluster therefore listens on loopback alone, and
answers only calls that carry its token, which each process makes anew and never writes to disk.
"""

import contextlib
import functools
import logging
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from services.inference.orphans import remove_folder

__all__ = ["NAMESPACE", "RayOptions", "isolate_local_cluster", "start_ray", "stop_ray"]

NAMESPACE = "tidemill"
_TRIES = 3
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the system's shared memory, not a temporary file of ours
_INHERITED = ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_NAMESPACE", "RAY_RUNTIME_ENV_HOOK")
_LOOPBACK = "127.0.0.1"
# Ray makes 127.0.0.1 the machine's outer address, and then listens on every interface, unless clusters of several nodes
# are ruled out. The variable was made for other systems, hence its name; it works on each.
_SINGLE_NODE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# What joins processes over TCP inside an engine (torch.distributed, vLLM) listens where these say.
_ENGINES_ON_LOOPBACK = {"VLLM_HOST_IP": _LOOPBACK, "MASTER_ADDR": _LOOPBACK, "GLOO_SOCKET_IFNAME": "lo"}


@dataclass(frozen=True)
class RayOptions:
    """
    Attributes:
        address: an existing cluster; empty starts a local one.
        cpus: logical CPUs of the local cluster: how many tasks may run at once.
        object_store_bytes: Ray's own least is 75 MiB.
        folder: session files and sockets of a local cluster; short, since socket paths end at 107 bytes.
        no_progress_seconds: Ray Data gives a dataset up after so long without a block.
    """

    address: str
    cpus: int
    object_store_bytes: int
    folder: Path
    no_progress_seconds: int


def start_ray(options: RayOptions) -> None:
    """Connect, or start the local cluster. Its processes end with this one (Ray's kernel fate sharing), so call it
    from a thread that lives as long as the process."""
    if not options.address:
        isolate_local_cluster()
    for tries_left in reversed(range(_TRIES)):
        try:
            _init(options)
            break
        except Exception as exc:
            # Ray gives its own processes 30 s, which a machine under load may exceed; it has no setting for it.
            if not tries_left or "timed out during startup" not in str(exc):
                raise
            _kill_half_started(options.folder)
    if not options.address:
        _refuse_to_be_reachable()
    _configure_data(options.no_progress_seconds)


def stop_ray(options: RayOptions) -> None:
    """Leave the cluster; a local one ends, and its files go."""
    import ray

    ray.shutdown()
    if not options.address:
        remove_folder(options.folder)


def _init(options: RayOptions) -> None:
    import ray

    arguments: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "configure_logging": False}
    ray.init(**arguments, **_where(options))


def _kill_half_started(folder: Path) -> None:
    """End the processes of a cluster that did not come up: each has the session's folder among its arguments."""
    import ray

    ray.shutdown()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if str(folder) in " ".join(process.cmdline()):
                process.kill()


def isolate_local_cluster() -> None:
    """Set what Ray reads once, at import: so call this before anything imports it."""
    for name in _INHERITED:
        os.environ.pop(name, None)
    os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token(), **_SINGLE_NODE, **_ENGINES_ON_LOOPBACK})


@functools.cache
def _token() -> str:
    """One for the process: Ray reads it once."""
    return secrets.token_hex(32)


def _refuse_to_be_reachable() -> None:
    import ray

    if (address := ray.util.get_node_ip_address()) != _LOOPBACK:
        ray.shutdown()
        raise RuntimeError(f"Ray listens on {address}: it was imported before its environment was set")


def _where(options: RayOptions) -> dict[str, Any]:
    if options.address:
        return {"address": options.address}
    local: dict[str, Any] = {
        "address": "local",
        "num_cpus": options.cpus,
        "object_store_memory": options.object_store_bytes,
        "include_dashboard": False,
        "_temp_dir": str(options.folder),
        "_node_ip_address": _LOOPBACK,
    }
    if _shared_memory_free() < options.object_store_bytes * 1.1:
        local["_plasma_directory"] = str(options.folder)
        options.folder.mkdir(parents=True, exist_ok=True)
    return local


def _shared_memory_free() -> int:
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else 0


def _configure_data(no_progress_seconds: int) -> None:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # It warns that the progress bars, which nobody would see, are off.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = no_progress_seconds
    context.execution_options.preserve_order = False
