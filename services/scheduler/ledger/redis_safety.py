"""What a Redis must be set to before it may hold a ledger, and the words of the refusal."""

from collections.abc import Mapping

from tidemill.errors import Reason, TidemillError

MIN_VERSION = (7, 0)
MIN_MAXMEMORY = 64 << 20
"""Bytes; less than this is full after some ten thousand jobs."""

SETTINGS = ("appendonly", "appendfsync", "maxmemory-policy", "maxmemory")
VOUCH = "TIDEMILL_SCHEDULER_LEDGER_VOUCHED=true"

_DEMANDS = {
    "appendonly": ("yes", "a restart of Redis would lose the ledger"),
    "appendfsync": ("always", "a power cut would lose what was acknowledged"),
    "maxmemory-policy": ("noeviction", "Redis would drop the ledger to make room"),
}


def check_version(version: str) -> None:
    """Refuse a Redis that lacks what the scripts use."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < MIN_VERSION:
        raise _unsafe(f"it is version {version}, and the ledger needs 7.0 or newer", "install a newer Redis")


def check_settings(found: Mapping[str, str]) -> None:
    """Refuse settings under which an acknowledged event could be lost.

    Raises:
        TidemillError: LEDGER_UNSAFE with each setting and the command that corrects it.
    """
    wrong = [
        (f"{name} is {found.get(name, 'unknown')!s} ({why})", f"CONFIG SET {name} {value}")
        for name, (value, why) in _DEMANDS.items()
        if found.get(name) != value
    ]
    limit = int(found.get("maxmemory", "0"))
    if 0 < limit < MIN_MAXMEMORY:
        wrong.append((f"maxmemory is {limit} bytes, less than {MIN_MAXMEMORY}", f"CONFIG SET maxmemory {4 << 30}"))
    if wrong:
        commands = " and ".join(f"`redis-cli {command}`" for _, command in wrong)
        raise _unsafe(
            "; ".join(what for what, _ in wrong), f"run {commands}, and `redis-cli CONFIG REWRITE` to keep it"
        )


def unknown_settings(why: str) -> TidemillError:
    """The refusal where the settings cannot be read."""
    demands = ", ".join(f"{name} {value}" for name, (value, _) in _DEMANDS.items())
    return _unsafe(
        f"its settings cannot be read ({why})",
        f"allow them for this user (`ACL SETUSER <user> +config|get +info`), or make sure of {demands} and enough "
        f"maxmemory yourself and set {VOUCH}",
    )


def _unsafe(why: str, remedy: str) -> TidemillError:
    return TidemillError(Reason.LEDGER_UNSAFE, f"this Redis may not hold a ledger: {why}; {remedy}")
